"""Random numbers: one generator for each purpose, never the global one."""

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch


def generator(seed: int, purpose: str) -> torch.Generator:
    """Make the generator of one purpose of a run, on the CPU."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and PyTorch's CPU, then restore them.

    For foreign code that draws from them, such as a data set's random crops.
    """
    python, numpy_state = random.getstate(), np.random.get_state()
    torch_state = torch.random.get_rng_state()
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)
        torch.random.set_rng_state(torch_state)


@contextmanager
def kept_generators(owners: Iterable[object]) -> Iterator[None]:
    """Give back the states of the generators that are attributes of objects after a block."""
    values = [value for owner in owners for value in vars(owner).values()]
    restores = [restore for value in values if (restore := _restore(value)) is not None]
    try:
        yield
    finally:
        for restore in restores:
            restore()


def _restore(value: object) -> Callable[[], object] | None:
    if isinstance(value, torch.Generator):
        return partial(value.set_state, value.get_state())
    if isinstance(value, np.random.RandomState):
        return partial(value.set_state, value.get_state())
    if isinstance(value, np.random.Generator):
        return partial(setattr, value.bit_generator, "state", value.bit_generator.state)
    if isinstance(value, random.Random):
        return partial(value.setstate, value.getstate())
    return None
