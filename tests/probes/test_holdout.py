"""The held-out rows: a permutation, stratified, reproducible."""

import pytest
import torch

from linprobe import LinprobeError
from linprobe.probes.holdout import (
    holdout_order,
    holdout_order_by_group,
    holdout_order_of_sets,
    num_held_out,
)


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


def test_rows_are_held_out_for_several_sets_evenly_by_their_rarest_classes():
    draw = generator(4)
    common = torch.arange(1200) % 2
    rare = (torch.rand(1200, generator=draw) < 0.02).long()
    many = torch.randint(12, (1200,), generator=draw)
    order, held = holdout_order_of_sets([common, rare, many], 1 / 6, generator())
    assert torch.equal(order.sort().values, torch.arange(1200)) and abs(held - 200) <= 12
    out = order[-held:]
    assert int(rare[out].sum()) == round(int(rare.sum()) / 6)
    for labels, most in ((common, 0.03), (many, 0.08)):
        share = torch.bincount(labels[out]) / torch.bincount(labels)
        assert float((share - 1 / 6).abs().max()) < most
    plain = torch.randperm(1200, generator=generator())[:held]
    share = torch.bincount(many[plain]) / torch.bincount(many)
    assert float((share - 1 / 6).abs().max()) > 0.03, "the check can fail"


@pytest.mark.parametrize("seed", range(30))
def test_no_class_of_any_set_loses_its_last_sample(seed):
    draw = generator(seed)
    count = 6 + seed
    sets = [torch.randint(k, (count,), generator=draw) for k in (2, 3, 5)]
    order, held = holdout_order_of_sets(sets, 0.4, generator(seed))
    assert 0 < held < count
    for labels in sets:
        assert set(labels[order[:-held]].tolist()) == set(labels.tolist())


def test_sets_that_leave_no_sample_to_hold_out_are_refused():
    with pytest.raises(LinprobeError, match="every sample is the only one of a class in some"):
        holdout_order_of_sets([torch.arange(4) // 2, torch.arange(4)], 1 / 6, generator())


def test_groups_leave_every_class_of_all_sets_a_sample():
    groups = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 3, 3])
    first = torch.tensor([0, 0, 1, 1, 0, 1, 0, 0, 1, 1])
    second = torch.tensor([0, 0, 0, 0, 1, 0, 1, 0, 1, 1])
    second[0] = 2  # group 0 alone has it
    for seed in range(20):
        order, held = holdout_order_by_group([first, second], groups, 0.5, generator(seed))
        for labels in (first, second):
            assert set(labels[order[:-held]].tolist()) == set(labels.tolist())
        assert 0 not in groups[order[-held:]]
