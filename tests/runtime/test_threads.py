"""Items side by side: order, threads, exceptions."""

import threading
import time

import pytest
import torch

from linprobe.runtime.threads import NARROW, map_layers, side_by_side


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_results_come_in_order_from_threads_of_one_core(four_threads):
    def work(item):
        time.sleep(0.02 * (3 - item))
        return item, torch.get_num_threads(), threading.get_ident()

    found = list(side_by_side(work, range(4), 2))
    assert [item for item, *_ in found] == [0, 1, 2, 3]
    assert {threads for _, threads, _ in found} == {1}
    assert threading.get_ident() not in {ident for *_, ident in found}
    assert torch.get_num_threads() == 4


def test_two_items_run_at_the_same_time():
    meeting = threading.Barrier(2, timeout=600)
    assert sorted(side_by_side(lambda _: meeting.wait(), range(2), 2)) == [0, 1]


def test_an_exception_drops_what_has_not_begun(four_threads):
    begun = []

    def work(item):
        begun.append(item)
        if item == 0:
            raise ValueError("no such layer")
        time.sleep(0.05)

    with pytest.raises(ValueError, match="no such layer"):
        list(side_by_side(work, range(100), 2))
    assert len(begun) < 10
    assert torch.get_num_threads() == 4


def test_wide_layers_have_all_threads_and_narrow_ones_one_each(four_threads):
    widths = {"a": NARROW, "b": NARROW + 1, "c": 3, "d": 9999}

    def work(name):
        return name, torch.get_num_threads()

    found = list(map_layers(work, widths, 2))
    assert found == [("b", 4), ("d", 4), ("a", 1), ("c", 1)]
    assert list(map_layers(work, widths, 1)) == [(name, 4) for name in widths]
