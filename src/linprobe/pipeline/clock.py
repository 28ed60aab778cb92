"""Seconds of the stages of a run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


class Clock:
    """Shares the wall time among the stages; threads count their own seconds."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._waited = 0.0
        self._spent = {"extract": 0.0, "solve": 0.0, "evaluate": 0.0, "controls": 0.0}

    def next(self, groups: Iterator[Item]) -> Item | None:
        """Take the next item and count the time that it takes."""
        begun = time.perf_counter()
        group = next(groups, None)
        self._waited += time.perf_counter() - begun
        return group

    def spend(self, stage: str, seconds: float) -> None:
        """Count seconds of one thread."""
        self._spent[stage] += seconds

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the seconds of a block."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.spend(name, time.perf_counter() - begun)

    def stages(self) -> dict[str, float]:
        """Seconds of wall time of each stage."""
        wall = time.perf_counter() - self._started - self._waited
        total = sum(self._spent.values()) or 1.0
        shares = {stage: wall * seconds / total for stage, seconds in self._spent.items()}
        shares["extract"] += self._waited
        return {k: s for k, s in shares.items() if s or k != "controls"}
