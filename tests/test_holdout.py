"""The held-out rows: a permutation, stratified, reproducible."""

import pytest
import torch

from linprobe.holdout import holdout_order, num_held_out


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_order_is_a_stratified_permutation():
    labels = torch.arange(1000) % 10
    labels[:300] = 0
    order = holdout_order(labels, 1 / 6, generator())
    assert torch.equal(order.sort().values, torch.arange(1000))
    held_out = labels[order[-num_held_out(1000, 1 / 6) :]]
    share = torch.bincount(held_out) / torch.bincount(labels)
    assert float((share - 1 / 6).abs().max()) < 0.02


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_no_class_loses_its_last_sample(fraction):
    labels = torch.tensor([0] * 50 + [1] * 2 + [2])
    order = holdout_order(labels, fraction, generator())
    fit = labels[order[: -num_held_out(len(labels), fraction)]]
    assert set(fit.tolist()) == {0, 1, 2}


def test_same_seed_same_order():
    labels = torch.arange(100) % 3
    first, second, other = (holdout_order(labels, 0.2, generator(s)) for s in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)


@pytest.mark.parametrize(("n", "expected"), [(2, 1), (6, 1), (60_000, 10_000)])
def test_number_held_out(n, expected):
    assert num_held_out(n, 1 / 6) == expected
