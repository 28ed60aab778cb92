"""One process at a time on a folder."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from linprobe.runtime.errors import LinprobeError


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a folder, which exists, for the block; it is free again when the process ends, however.

    The lock is the operating system's, on the folder itself, and leaves no file. Where a system
    has none (Windows, some network drives), the block runs without it.

    Raises:
        LinprobeError: Another process, or another call in this one, holds the folder.
    """
    number = -1
    try:
        import fcntl

        number = os.open(folder, os.O_RDONLY)
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(number)
        raise LinprobeError(
            f"another process is writing a run to {folder}; wait until it ends, or choose another "
            "folder"
        ) from error
    except (ImportError, OSError):
        pass
    try:
        yield
    finally:
        if number >= 0:
            os.close(number)
