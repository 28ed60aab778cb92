"""Ends of a command from outside: Ctrl-C, and SIGTERM, which schedulers send before they kill."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM."""


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, by `Terminated`."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not the main thread, which alone may say so
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def kept_in(out: Path, *, overwrite: bool = False) -> Iterator[None]:
    """Say at such an end where finished layers are kept, and how to go on."""
    try:
        yield
    except KeyboardInterrupt as end:
        command = "the same command" + (" without --overwrite" if overwrite else "")
        raise type(end)(f"finished layers are kept in {out}; {command} goes on from there") from end
