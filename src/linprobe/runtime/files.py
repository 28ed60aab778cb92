"""Atomic writes: a reader never sees half a file."""

import contextlib
import csv
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from uuid import uuid4

from safetensors import SafetensorError

from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.text import first_line


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path` that replaces it when the block ends without error.

    It is on the disk, and so is its name, when the block has ended: also a machine that loses its
    power has the old file or the new one. After an exception the temporary file is gone and `path`
    is what it was before. Missing parent folders are made.

    Raises:
        LinprobeError: The file can't be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        with contextlib.suppress(OSError):  # not every system can do so with a folder
            _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError | SafetensorError):
            reason = getattr(error, "strerror", None) or first_line(error)
            raise LinprobeError(
                f"{path} can't be written ({reason}); expected a folder that you may write to, "
                "with space left: free some, or choose another"
            ) from error
        raise


def is_one_name(name: str) -> bool:
    """Tell whether a name is that of a file, which leads to no other folder."""
    return name not in ("", ".", "..") and not any(letter in name for letter in "/\\\0")


def one_name(name: str) -> str:
    """Return a name of a file, which leads to no other folder.

    Raises:
        LinprobeError: It holds a separator, or stands for a folder.
    """
    if not is_one_name(name):
        raise LinprobeError(
            f"{name!r} is to be the name of a file; expected one without / and \\: was the record "
            "edited?"
        )
    return name


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table, whole or not at all; None is an empty cell."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def file_sha256(path: Path) -> str:
    """Return the hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
