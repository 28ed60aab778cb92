"""Rows that are written to a file as they come, and read from it after that."""

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from linprobe.core.features.stores import FileRows
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
        number, name = tempfile.mkstemp(".rows", dir=folder)
        self._file: BinaryIO = os.fdopen(number, "wb")
        weakref.finalize(self, self._file.close)  # also where it is never finished
        self._path, self._width, self._count = Path(name), num_features, 0
        self._dtype: torch.dtype | None = None

    def append(self, rows: Tensor) -> None:
        """Write the next rows (m, num_features).

        Raises:
            LinprobeError: A disk that is full, or fails.
        """
        if self._dtype is None:
            self._dtype = rows.dtype if rows.dtype in _FLOATING else torch.float32
        plain = rows.detach().to("cpu", self._dtype).contiguous()
        try:
            self._file.write(plain.view(torch.uint8).numpy().data)
        except OSError as error:
            raise LinprobeError(_no_space(self._path.parent, str(error))) from error
        self._count += len(rows)

    def finished(self) -> FileRows:
        """Read from now on; the file's space is free again when what is returned is."""
        try:
            self._file.close()
        except OSError as error:
            raise LinprobeError(_no_space(self._path.parent, str(error))) from error
        shape = self._count, self._width
        return FileRows(self._path, shape, self._dtype or torch.float32)


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
