"""Penalties and features of any size: a probe that is certified, or says `precision_limit`."""

import math
from dataclasses import fields

import numpy as np
import pytest
import torch

import linprobe
from linprobe import ProbeConfig

SIZES = {
    torch.float16: (1e-4, 1.0, 1e3),
    torch.bfloat16: (1e-40, 1.0, 1e30),
    torch.float32: (1e-40, 1e-20, 1.0, 1e30),
    torch.float64: (1e-270, 1e-40, 1.0, 1e150, 1e305),
}
PENALTIES = (1e-300, 1e-45, 1e-20, 1e-12, 1.0, 1e45, (1e-1, 1e-45), (1e300, 1e-300))


def rows(n, seed, width, classes=3):
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    x = torch.randn(n, width, generator=draw, dtype=torch.float64)
    return x + torch.eye(max(width, classes))[y][:, :width], y


def probed(l2, size=1.0, dtype=torch.float64, width=4):
    (x, y), (xt, yt) = rows(60, 0, width), rows(30, 1, width)
    train, test = ({"h": (size * part).to(dtype)} for part in (x, xt))
    method = ProbeConfig(l2, max_passes=60)
    return linprobe.fit_probes(train, y, (test, yt), method=method)["h"]


def numbers(record):
    return {
        field.name: value
        for field in fields(record)
        if isinstance(value := getattr(record, field.name), float)
    }


@pytest.mark.parametrize("case", range(16))
def test_no_number_is_lost_whatever_the_size(case):
    draw = np.random.default_rng(case)
    dtype = list(SIZES)[case % len(SIZES)]
    size = SIZES[dtype][draw.integers(len(SIZES[dtype]))]
    l2 = PENALTIES[draw.integers(len(PENALTIES))]
    probe = probed(l2, size, dtype, width=(4, 90)[case // 4 % 2])
    assert probe.record.status in ("converged", "precision_limit"), (dtype, size, l2)
    assert not any(map(math.isnan, numbers(probe.record).values())), (dtype, size, l2)
    assert bool(probe.weight.isfinite().all() and probe.bias.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_small_penalty_is_solved_in_float64(dtype):
    record = probed(1e-12, dtype=dtype).record
    assert record.converged and record.duality_gap <= 1e-4
    again = probed(1e-9, dtype=dtype).record
    assert record.train_cross_entropy <= again.train_cross_entropy + 1e-4


def test_a_penalty_of_nearly_nothing_separates_what_can_be_separated():
    record = probed(1e-300, width=90).record
    assert record.status == "precision_limit"
    assert record.train_error_rate == 0 and record.objective < 1e-4


@pytest.mark.parametrize(("size", "dtype"), [(1e-40, torch.float32), (1e150, torch.float64)])
def test_the_size_of_features_changes_no_probe(size, dtype):
    one, other = probed(1e-2).record, probed(1e-2, size, dtype).record
    assert other.converged
    assert other.test_error_rate == one.test_error_rate
    assert other.objective == pytest.approx(one.objective, abs=1e-4)


def test_what_float64_can_not_hold_is_said():
    record = probed(1e-2, 1e-310).record
    assert record.status == "precision_limit" and "multiply them by a number" in record.reason
    record = probed(1e-100, 1e-279, width=90).record
    assert record.status == "precision_limit"
