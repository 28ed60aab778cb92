"""Layers are grouped in order, as many at a time as the budget holds."""

import pytest

from linprobe.activations.groups import plan_groups


def test_groups_keep_the_order_and_the_budget() -> None:
    widths = {"a": 10, "b": 10, "c": 100, "d": 10, "e": 10, "f": 10}
    groups = plan_groups(widths, num_rows=5, budget_bytes=4 * 5 * 25)
    assert groups == [("a", "b"), ("c",), ("d", "e"), ("f",)]
    assert plan_groups(widths, 5, 4 * 5 * 150) == [tuple(widths)]
    assert plan_groups(widths, 5, 0) == [(layer,) for layer in widths]
    assert plan_groups({}, 5, 100) == []


@pytest.mark.parametrize("itemsize", [2, 4, 8])
def test_the_size_of_a_number_counts(itemsize: int) -> None:
    widths = {"a": 10, "b": 10, "c": 10}
    budget = 5 * itemsize * 20
    assert plan_groups(widths, 5, budget, itemsize) == [("a", "b"), ("c",)]
    assert plan_groups(widths, 5, budget - 1, itemsize) == [("a",), ("b",), ("c",)]
