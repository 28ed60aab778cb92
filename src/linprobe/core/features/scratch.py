"""Rows that are written to a file as they come, and read from it after that."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from linprobe.core.features.stores import FileRows, row_sums
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.text import size_text

_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class ScratchRows:
    """Rows on their way to a file, in the dtype of the first ones where it is floating.

    Args:
        folder: where the file is; it needs no name once it is read.
        num_features: D.
    """

    def __init__(self, folder: Path, num_features: int) -> None:
        try:
            number, name = tempfile.mkstemp(".rows", dir=folder)
        except OSError as error:
            raise LinprobeError(_no_space(folder, str(error))) from error
        self._file: BinaryIO = os.fdopen(number, "wb")
        weakref.finalize(self, self._file.close)  # also where it is never finished
        self._path, self._width, self._count = Path(name), num_features, 0
        self._dtype: torch.dtype | None = None
        self._sums: list[np.ndarray] = []

    def append(self, rows: Tensor) -> None:
        """Write the next rows (m, num_features).

        Raises:
            LinprobeError: A disk that is full, or fails.
        """
        if self._dtype is None:
            self._dtype = rows.dtype if rows.dtype in _FLOATING else torch.float32
        plain = rows.detach().to("cpu", self._dtype).contiguous()
        raw = plain.view(torch.uint8).numpy()
        try:
            self._file.write(raw.data)
        except OSError as error:
            raise LinprobeError(_no_space(self._path.parent, str(error))) from error
        self._sums.append(row_sums(raw.reshape(-1), self._width * plain.itemsize))
        self._count += len(rows)

    def finished(self) -> FileRows:
        """Read from now on; the file's space is free again when what is returned is."""
        try:
            self._file.close()
        except OSError as error:
            raise LinprobeError(_no_space(self._path.parent, str(error))) from error
        shape = self._count, self._width
        sums = np.concatenate(self._sums) if self._sums else None
        return FileRows(self._path, shape, self._dtype or torch.float32, sums=sums)


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Make a folder for the time of the block; a `LinprobeError` where that can't be."""
    try:
        made = tempfile.TemporaryDirectory(
            prefix="linprobe-", dir=parent, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise LinprobeError(_no_space(parent, str(error))) from error
    with made as folder:
        yield Path(folder)


def scratch_parent(beside: Path | None = None) -> Path:
    """Choose where scratch folders are made: `beside`, if it can be written, or that of TMPDIR."""
    if beside is not None and os.access(beside, os.W_OK):
        return beside
    try:
        return Path(tempfile.gettempdir())
    except OSError:  # nothing can be written: said when there is something to write
        return Path.cwd()


def check_space(folder: Path, num_bytes: float) -> None:
    """Refuse to write more than there is space for, with a `LinprobeError`."""
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise LinprobeError(
            _no_space(folder, f"{size_text(num_bytes)} needed, {size_text(free)} free")
        )


def _no_space(folder: Path, why: str) -> str:
    return (
        f"features that exceed memory_bytes can't be written to {folder} ({why}); expected space "
        "on that disk: set TMPDIR to a folder of another one, pool or draw features (reduce), or "
        "raise memory_bytes"
    )
