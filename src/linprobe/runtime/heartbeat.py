"""Signs of life of processes that wait for each other, in the store of a process group."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Protocol

from linprobe.runtime.errors import LinprobeError

_BEATS = 10  # in the time after which a process counts as lost
_LONGEST_PAUSE = 0.1  # seconds between two looks at a store
_GONE = b"gone"


class LostProcess(LinprobeError):
    """Raised when another process has failed or no longer answers: this one's work ends too."""


class Store(Protocol):
    """The part of `torch.distributed.Store` that is used."""

    def set(self, key: str, value: str) -> None:
        """Set a value."""
        ...

    def get(self, key: str) -> bytes:
        """Get a value that is there."""
        ...

    def add(self, key: str, amount: int) -> int:
        """Add to a number, from 0 on, and return it."""
        ...

    def check(self, keys: list[str]) -> bool:
        """Tell whether all of these keys are there."""
        ...


class Pulse:
    """Shows that this process is alive, and learns of others that are not.

    Args:
        store: shared by all processes.
        rank: of this one.
        size: how many there are.
        seconds: without a sign of life, after which a process is lost.

    Attributes:
        lost: why the work is to end; empty: it isn't.
        first_is_lost: whether it is the first process that is lost.
    """

    def __init__(self, store: Store, rank: int, size: int, seconds: float) -> None:
        self._store, self._rank, self._size, self._seconds = store, rank, size, seconds
        self.lost, self.first_is_lost = "", False
        self._call, self._met = 0, 0
        self._stop = Event()
        # The first one sees all others, which see the first one.
        self._watched = range(1, size) if rank == 0 else range(1)
        self._seen: dict[int, tuple[bytes, float]] = {}
        self._thread = Thread(target=self._beat, name="linprobe heartbeat", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Begin the next call: what was lost in an earlier one may be there again."""
        self._call, self._met = self._call + 1, 0
        if self._thread.is_alive():
            self.lost, self.first_is_lost = "", False

    def check(self) -> None:
        """Raise what is known to be lost."""
        if self.lost:
            raise LostProcess(self.lost)

    def meet(self) -> None:
        """Wait until all processes are here, as long as they show that they are alive."""
        self._met += 1
        self.wait(f"{self._call}/met/{self._met}")

    def wait(self, key: str, seconds: float = float("inf")) -> None:
        """Wait until all processes have waited for a key.

        Raises:
            LostProcess: One is lost, or does not come in so many seconds.
        """
        started, pause = time.monotonic(), 1e-4
        with self.answering():
            arrived = self._store.add(key, 1)
            while arrived < self._size:
                if self.lost and self._store.add(key, 0) < self._size:
                    self.check()  # else it came, and has ended since
                if time.monotonic() - started > seconds:
                    raise LostProcess(
                        f"only {arrived} of {self._size} processes called linprobe within "
                        f"{seconds:.0f} s; call it in all of them, or with distribute=None in one"
                    )
                self._stop.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                arrived = self._store.add(key, 0)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Say what is lost where the block can't reach another process.

        Raises:
            LostProcess: It can't.
        """
        try:
            yield
        except RuntimeError as error:
            # Who failed says so; else it takes a while to know who doesn't answer.
            deadline = time.monotonic() + 2 * self._seconds / _BEATS
            while not self.lost and time.monotonic() < deadline:
                self._stop.wait(_LONGEST_PAUSE)
            self._lose("another process has ended or no longer answers", first=self._rank == 1)
            raise LostProcess(self.lost) from error

    def fail(self, message: str) -> None:
        """Tell the others why they are to end."""
        self.lost = self.lost or message
        with suppress(RuntimeError):
            self._store.set(f"{self._call}/failed", message)

    def end(self, *, wait: bool) -> None:
        """Stop, and `wait` until the others have stopped or are lost."""
        self._stop.set()
        self._thread.join(self._seconds)
        with suppress(RuntimeError):
            self._store.set(f"alive/{self._rank}", _GONE.decode())
            left = set(range(1, self._size)) if wait else set()
            deadline = time.monotonic() + self._seconds / (_BEATS if self.lost else 1)
            while left and time.monotonic() < deadline:
                left = {rank for rank in left if not self._is_gone(rank)}
                time.sleep(_LONGEST_PAUSE / 5)

    def _is_gone(self, rank: int) -> bool:
        key = f"alive/{rank}"
        _, since = self._seen.get(rank, (b"", time.monotonic()))
        stale = time.monotonic() - since > self._seconds
        return stale or (self._store.check([key]) and self._store.get(key) == _GONE)

    def _beat(self) -> None:
        beats = 0
        try:
            while not self._stop.is_set():
                beats += 1
                self._store.set(f"alive/{self._rank}", str(beats))
                self._look()
                self._stop.wait(self._seconds / _BEATS)
        except RuntimeError:  # the store is gone, with the process that had it
            self._lose(f"process 0 of {self._size} has ended", first=True)

    def _look(self) -> None:
        failed = f"{self._call}/failed"
        if self._call and not self.lost and self._store.check([failed]):
            self._lose(self._store.get(failed).decode())
        now = time.monotonic()
        for rank in self._watched:
            if not self._store.check([f"alive/{rank}"]):
                continue  # it has not come yet
            value = self._store.get(f"alive/{rank}")
            before, since = self._seen.get(rank, (b"", now))
            if value != before:
                self._seen[rank] = value, now
            silent = "has ended" if value == _GONE else ""
            if not silent and value == before and now - since > self._seconds:
                silent = f"has not answered for {self._seconds:.0f} s"
            if silent and self._call and not self.lost:
                self._lose(f"process {rank} of {self._size} {silent}", first=rank == 0)
                if self._rank == 0 and value != _GONE:
                    self.fail(self.lost)

    def _lose(self, message: str, *, first: bool = False) -> None:
        if not self.lost:
            self.lost, self.first_is_lost = message, first
