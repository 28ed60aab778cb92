"""Equal things have one fingerprint, different things another."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from linprobe.probes.config import ProbeConfig
from linprobe.runtime.fingerprint import Fingerprint


def text(*values):
    made = Fingerprint()
    made.add(*values)
    return made.text


def norm(value):
    made = nn.BatchNorm1d(3)
    made.running_mean.fill_(value)
    return made


def adder(number):
    return lambda x: x + number


BIG = torch.arange(3_000_000)
PAIRS = [
    (torch.zeros(3), torch.zeros(1, 3)),
    (torch.zeros(3), torch.zeros(3, dtype=torch.float64)),
    (torch.tensor(0.0), torch.tensor(-0.0)),
    (BIG, torch.cat([BIG[:-1], torch.tensor([0])])),
    (torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.float16)),
    (torch.tensor([1j]), torch.tensor([1j]).conj()),
    (np.array(["ab", "c"]), np.array(["a", "bc"])),
    (np.array([None, 1]), np.array([None, 2])),
    (["ab", "c"], ["a", "bc"]),
    ([1, [2, 3]], [1, 2, 3]),
    ((1, 2), [1, 2]),
    (1, True),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    (ProbeConfig(tol=1e-3), ProbeConfig(tol=1e-4)),
    (norm(0.0), norm(1.0)),
    (nn.ReLU(), nn.GELU()),
    (nn.ReLU, nn.GELU),
    (adder(1), adder(2)),
    (lambda x: "3" in x, lambda x: "4" in x),
    (lambda x: x.a, lambda x: x.b),
    (partial(max, 1), partial(max, 2)),
    (torch.eye(2).to_sparse(), 2 * torch.eye(2).to_sparse()),
    (torch.zeros(2, device="meta"), torch.zeros(3, device="meta")),
]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_different_things_differ(one, other):
    assert text(one) != text(other)


def test_equal_things_agree():
    x = torch.arange(6.0).view(2, 3)
    assert text(x) == text(x.clone()) == text(x.T.contiguous().T)
    assert text(np.arange(6)) == text(np.arange(12)[::2] // 2)
    assert text(adder(1)) == text(adder(1))
    assert text(norm(1.0)) == text(norm(1.0))
    assert text(object()) == text(object())  # without its address
    assert text({1, 2, 3}) == text({3, 2, 1})
    assert text(nn.Parameter(x)) == text(nn.Parameter(x.clone()))


def test_things_that_hold_themselves_have_an_end():
    def again(n):
        return again(n - 1) if n else 0

    loop = [1]
    loop.append(loop)
    assert text(again) and text(loop)


def test_a_mapped_file_is_read_in_blocks(tmp_path):
    values = np.random.default_rng(0).normal(size=(1000, 700))
    np.save(tmp_path / "x.npy", values)
    assert text(np.load(tmp_path / "x.npy", mmap_mode="r")[:]) != text(values[:-1])
    assert text(np.asarray(np.load(tmp_path / "x.npy", mmap_mode="r"))) == text(values)
