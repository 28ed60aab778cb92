"""The held-out rows: a permutation, stratified, reproducible."""

import pytest
import torch

from linprobe import LinprobeError
from linprobe.probes.holdout import holdout_order, holdout_order_by_group, num_held_out


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


def test_no_group_stands_on_both_sides():
    labels = torch.arange(300) % 3
    groups = torch.arange(300) // 7  # neighbours belong together
    order, held = holdout_order_by_group(labels, groups, 1 / 6, generator())
    assert torch.equal(order.sort().values, torch.arange(300))
    assert abs(held - 50) <= 7
    fit, out = groups[order[:-held]], groups[order[-held:]]
    assert not set(fit.tolist()) & set(out.tolist())
    # The same rows by themselves would share groups: the check can fail.
    plain = groups[holdout_order(labels, 1 / 6, generator())]
    assert set(plain[:-50].tolist()) & set(plain[-50:].tolist())


def test_groups_leave_every_class_a_sample():
    labels = torch.tensor([0, 0, 1, 1, 0, 1, 2, 0, 1, 1])
    groups = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 3, 3])  # class 2 is in one group only
    for seed in range(20):
        order, held = holdout_order_by_group(labels, groups, 0.5, generator(seed))
        assert set(labels[order[:-held]].tolist()) == {0, 1, 2}


def test_large_groups_are_held_out_rather_than_none():
    order, held = holdout_order_by_group(
        torch.tensor([0, 1, 0, 1, 0]), torch.tensor([4, 4, 4, 9, 9]), 0.1, generator()
    )
    assert held == 2 and sorted(order[-held:].tolist()) == [3, 4]


@pytest.mark.parametrize("groups", [[0, 0, 0, 0], [0, 0, 1, 1]])
def test_groups_of_which_none_can_be_held_out(groups):
    with pytest.raises(LinprobeError, match=r"none of the \d groups .* can be held out"):
        holdout_order_by_group(torch.tensor([0, 0, 1, 1]), torch.tensor(groups), 0.5, generator())
