"""Rows of numbers where they are kept, in their own dtype: a tensor, an array or a file.

Files are read by position, not mapped: what is read is counted where it is held, a file that has
shrunk gives a message instead of a signal, and rows here and there cost no read-ahead.
"""

import math
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.numbers import native_dtype

_HASHED = 2**22  # bytes at a time

Span = tuple[int, int]
"""Rows from the first number up to, not including, the second."""


class DamagedRows(LinprobeError):
    """Raised where rows that were written to a scratch file don't come back as they were."""


class RowStore(Protocol):
    """Rows that are read a block at a time, or one by one."""

    @property
    def shape(self) -> tuple[int, int]:
        """(num_rows, num_features)."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of what is read."""
        ...

    def scan(self, spans: Sequence[Span]) -> Iterator[Tensor]:
        """Yield the rows of each span; a block lasts until the next one is asked for."""
        ...

    def gather(self, index: Tensor) -> Tensor:
        """Read the rows of a rising int64 index (m,) on the CPU: a new tensor (m, num_features)."""
        ...


class TensorRows:
    """Rows of a tensor (num_rows, num_features) of real numbers; never written to."""

    def __init__(self, values: Tensor) -> None:
        self._values = values.detach()
        self.shape, self.dtype = (values.shape[0], values.shape[1]), values.dtype

    def scan(self, spans: Sequence[Span]) -> Iterator[Tensor]:
        """See `RowStore`."""
        return (self._values[start:stop] for start, stop in spans)

    def gather(self, index: Tensor) -> Tensor:
        """See `RowStore`."""
        return self._values[index.to(self._values.device)]


class ArrayRows:
    """Rows of an array (num_rows, num_features) of real numbers, in any order of bytes and axes.

    Arrays of other libraries, which may lie on disk, are sliced only.
    """

    def __init__(self, values: np.ndarray) -> None:
        self._values = values
        self.shape, self.dtype = (values.shape[0], values.shape[1]), _torch_dtype(values.dtype)

    def scan(self, spans: Sequence[Span]) -> Iterator[Tensor]:
        """See `RowStore`."""
        return (_decoded(np.array(self._values[start:stop])) for start, stop in spans)

    def gather(self, index: Tensor) -> Tensor:
        """See `RowStore`."""
        if isinstance(self._values, np.ndarray):
            return _decoded(np.array(self._values[index.numpy()]))
        blocks = list(self.scan([(start, stop) for start, stop, _ in _runs(index)]))
        return torch.cat(blocks) if blocks else torch.empty(0, self.shape[1], dtype=self.dtype)


class FileRows:
    """Rows that lie one after the other in a file, read by a thread that is a block ahead.

    Args:
        path: of the file, which is kept open.
        shape: (num_rows, num_features).
        dtype: of the numbers in the file; bfloat16 is PyTorch's.
        offset: bytes before the first row.
        sums: `row_sums` of what was written, by which each row is checked as it is read; None: a
            file of the user's.

    Raises:
        LinprobeError: A file that can't be opened, or is too short.
    """

    def __init__(
        self,
        path: str | Path,
        shape: tuple[int, int],
        dtype: np.dtype[Any] | torch.dtype,
        offset: int = 0,
        sums: np.ndarray | None = None,
    ) -> None:
        self.path, self.shape, self._offset = os.fspath(path), shape, offset
        self._sums, self._error = sums, LinprobeError if sums is None else DamagedRows
        self._kept = None if isinstance(dtype, torch.dtype) else dtype
        self.dtype = dtype if isinstance(dtype, torch.dtype) else _torch_dtype(dtype)
        self._row = shape[1] * dtype.itemsize
        try:
            self._file = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise LinprobeError(f"{self.path} can't be read ({error}); expected a file") from error
        weakref.finalize(self, os.close, self._file)
        self._state = self._stat()
        if self._state[0] < offset + shape[0] * self._row:
            needed = offset + shape[0] * self._row
            raise LinprobeError(
                f"{self.path} has {self._state[0]:,} bytes; expected at least {needed:,} of "
                f"{shape[0]:,} rows: was it written to the end?"
            )

    def scan(self, spans: Sequence[Span]) -> Iterator[Tensor]:
        """See `RowStore`."""
        if not spans:
            return
        size = max(stop - start for start, stop in spans) * self._row
        buffers = np.empty(size, np.uint8), np.empty(size, np.uint8)

        def read(number: int) -> Tensor:
            start, stop = spans[number]
            buffer = buffers[number % 2][: (stop - start) * self._row]
            self._read(buffer, start)
            return self._rows(buffer)

        self._check_state()
        yield from _read_ahead(read, len(spans))
        self._check_state()

    def __len__(self) -> int:
        """Number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Tensor:
        """Read a slice of rows, as of an array; a new tensor."""
        return self.gather(torch.arange(*rows.indices(len(self))))

    @property
    def ndim(self) -> int:
        """Two, as of an array."""
        return len(self.shape)

    def byte_blocks(self) -> Iterator[bytes]:
        """Read all bytes for a `linprobe.runtime.fingerprint.Fingerprint`."""
        yield repr((self.shape, self.dtype)).encode()
        step = max(1, _HASHED // self._row)
        for start in range(0, len(self), step):
            buffer = np.empty((min(start + step, len(self)) - start) * self._row, np.uint8)
            self._read(buffer, start)
            yield buffer.tobytes()

    def gather(self, index: Tensor) -> Tensor:
        """See `RowStore`."""
        buffer = np.empty(len(index) * self._row, np.uint8)
        for start, stop, place in _runs(index):
            end = place + stop - start
            self._read(buffer[place * self._row : end * self._row], start)
        return self._rows(buffer)

    def _rows(self, buffer: np.ndarray) -> Tensor:
        kept = self._kept or np.dtype(f"i{self.dtype.itemsize}")  # NumPy has no bfloat16
        rows = _decoded(buffer.view(kept).reshape(-1, self.shape[1]))
        return rows.view(self.dtype) if self._kept is None else rows

    def _read(self, buffer: np.ndarray, row: int) -> None:
        """Fill a buffer of bytes from a row on, and check it."""
        self._fill(buffer, row)
        if self._sums is None or not len(buffer):
            return
        found = row_sums(buffer, self._row)
        wrong = np.flatnonzero(found != self._sums[row : row + len(found)])
        if len(wrong):
            raise DamagedRows(
                f"{self.path}: {len(wrong)} of {len(found)} rows from {row} on are not what was "
                "written there; expected a disk that keeps what it is given: set TMPDIR to a "
                "folder of another one"
            )

    def _fill(self, buffer: np.ndarray, row: int) -> None:
        position, left = self._offset + row * self._row, buffer.data
        while len(left):
            try:
                count = os.preadv(self._file, [left], position)
            except OSError as error:
                raise self._error(
                    f"{self.path} can't be read any more ({error}); expected a file that stays "
                    "until its probe is done"
                ) from error
            if not count:
                raise self._error(self._changed())
            position, left = position + count, left[count:]

    def _stat(self) -> tuple[int, int]:
        found = os.fstat(self._file)
        return found.st_size, found.st_mtime_ns

    def _check_state(self) -> None:
        if self._stat() != self._state:
            raise self._error(self._changed())

    def _changed(self) -> str:
        return (
            f"{self.path} has changed while it was read; expected the same "
            f"{self.shape[0]:,} rows until its probe is done: don't write to it meanwhile"
        )


def row_sums(buffer: np.ndarray, row_bytes: int) -> np.ndarray:
    """Sum the words of each row: any bit that flips changes its row's sum.

    A sum costs less than the read (10 GB/s on one core against 2 GB/s of CRC-32).

    Args:
        buffer: rows one after the other, as bytes.
        row_bytes: of a row.

    Returns:
        (num_rows,) whole numbers of the widest words that a row is made of.
    """
    word = np.dtype(f"u{math.gcd(8, row_bytes)}")
    rows = buffer.view(word).reshape(-1, row_bytes // word.itemsize)
    sums: np.ndarray = np.add.reduce(rows, axis=1, dtype=word)
    return sums


def file_rows(array: Any) -> FileRows | None:
    """Find the file that a memory-mapped array (num_rows, num_features) lies in.

    Returns:
        None where it lies in no file row by row, or in another one than its path leads to, or has
        changes that its file doesn't get.
    """
    if not isinstance(array, np.memmap) or array.ndim != 2 or not hasattr(os, "preadv"):
        return None
    whole: np.ndarray = array
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    plain = array.flags.c_contiguous and array.dtype.kind in "biufc" and array.size > 0
    if not isinstance(whole, np.memmap) or whole.filename is None or whole.mode == "c" or not plain:
        return None
    if whole.mode != "r":
        whole.flush()
    before = array.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    shape = (array.shape[0], array.shape[1])
    try:
        found = FileRows(whole.filename, shape, array.dtype, whole.offset + before)
    except LinprobeError:
        return None
    ends = torch.tensor([0, shape[0] - 1])
    same = found.gather(ends).numpy().tobytes() == _decoded(array[ends.numpy()]).numpy().tobytes()
    return found if same else None


def _runs(index: Tensor) -> Iterator[tuple[int, int, int]]:
    """Split a rising index into runs without gaps: first row, end, and place in the index."""
    breaks = [0, *((index.diff() != 1).nonzero()[:, 0] + 1).tolist(), len(index)]
    for place, end in pairwise(breaks):
        if end > place:
            first = int(index[place])
            yield first, first + end - place, place


def _decoded(array: np.ndarray) -> Tensor:
    """View numbers as a tensor, in PyTorch's order of bytes."""
    return torch.from_numpy(array.astype(native_dtype(array.dtype), copy=False))


def _torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    return _decoded(np.empty(0, dtype)).dtype


def _read_ahead(read: Callable[[int], Tensor], count: int) -> Iterator[Tensor]:
    """Yield `read(0)`, `read(1)` ..., of which a thread does the next one meanwhile."""
    with ThreadPoolExecutor(1, "linprobe-read") as pool:
        try:
            coming = pool.submit(read, 0)
        except RuntimeError:  # a limit of memory or of processes allows no thread
            yield from map(read, range(count))
            return
        for number in range(1, count + 1):
            rows = coming.result()
            if number < count:
                coming = pool.submit(read, number)
            yield rows
