"""Threads: layers side by side, one thread each.

A product with few columns is too small to be worth splitting: on narrow layers two threads are
hardly faster than one, so two layers at once take little more time than one. What one thread
computes also does not depend on how many others there are.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

NARROW = 1024
"""Layers of at most so many features are worked on side by side, one thread each."""


def thread_count(device: torch.device) -> int:
    """Count the narrow layers to fit at a time; a GPU's are not held up by threads."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def map_layers(
    function: Callable[[str], Result], widths: Mapping[str, int], num_workers: int
) -> Iterator[Result]:
    """Apply `function` to layers: one by one where they are wide, then the narrow ones together.

    Args:
        function: called with a layer's name.
        widths: number of features of each layer.
        num_workers: how many narrow layers at a time; 1: those too one by one, on all threads.

    Yields:
        Results, of wide layers first, else in the order of `widths`.
    """
    narrow = [name for name, width in widths.items() if num_workers > 1 and width <= NARROW]
    for name in widths:
        if name not in narrow:
            yield function(name)
    yield from side_by_side(function, narrow, num_workers)


def side_by_side(
    function: Callable[[Item], Result], items: Iterable[Item], num_workers: int
) -> Iterator[Result]:
    """Apply `function` to all items, `num_workers` at a time; yield the results in order.

    Each worker is a thread that PyTorch gives one core. When an item raises, those not begun are
    dropped and the exception is raised here.
    """
    if num_workers == 1 and torch.get_num_threads() == 1:
        yield from map(function, items)
        return
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(num_workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for future in [pool.submit(function, item) for item in items]:
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)
        # New threads, and MKL in all of them, take over what was set last.
        torch.set_num_threads(before)
