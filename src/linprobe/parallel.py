"""Layers side by side, one thread each.

A product with few columns is too small to be worth splitting: on narrow layers two threads are
hardly faster than one, so two layers at once take little more time than one. What one thread
computes also does not depend on how many others there are.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(
    function: Callable[[Item], Result], items: Iterable[Item], num_workers: int
) -> Iterator[Result]:
    """Apply `function` to all items, `num_workers` at a time; yield the results in order.

    Each worker is a thread that PyTorch gives one core. When an item raises, those not begun are
    dropped and the exception is raised here.
    """
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(num_workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for future in [pool.submit(function, item) for item in items]:
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)
        # New threads, and MKL in all of them, take over what was set last.
        torch.set_num_threads(before)
