"""Tests of benchmarks.few_rows."""

import torch

from benchmarks.few_rows import one_thread


def test_one_thread_is_for_the_while_alone():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
