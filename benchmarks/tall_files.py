"""Drawn rows that exceed the memory, in files that ``linprobe.fit_probes`` streams."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.drawn import frames
from benchmarks.features import labels_file
from linprobe.runtime.files import atomic_write
from linprobe.runtime.text import size_text

_DTYPE = np.dtype("<f2")
_HEADER = 4096  # bytes, of both files together at most


@dataclass(frozen=True)
class TallFile:
    """One split: rows in float16 and their labels, drawn where they are not there yet.

    Attributes:
        folder: where both files are.
        split: "train" or "test".
        num_rows: n.
        num_features: D.
        num_classes: K.
    """

    folder: Path
    split: str
    num_rows: int
    num_features: int
    num_classes: int

    @property
    def path(self) -> Path:
        """The features, (num_rows, num_features)."""
        sizes = f"{self.num_rows}x{self.num_features}x{self.num_classes}"
        return self.folder / f"tall-{self.split}-{sizes}.npy"

    @property
    def feature_bytes(self) -> int:
        """Bytes of the rows, as they are kept."""
        return self.num_rows * self.num_features * _DTYPE.itemsize

    @property
    def num_bytes(self) -> int:
        """Bytes of both files."""
        return self.feature_bytes + 8 * self.num_rows + _HEADER

    def labels(self) -> Tensor:
        """Read the labels, (num_rows,) int64."""
        return torch.from_numpy(np.load(labels_file(self.path), allow_pickle=False))

    def exists(self) -> bool:
        """Tell whether both files are there, of these shapes and dtypes."""
        expected = (
            (self.path, (self.num_rows, self.num_features), _DTYPE),
            (labels_file(self.path), (self.num_rows,), np.dtype(np.int64)),
        )
        return all(_holds(path, shape, dtype) for path, shape, dtype in expected)

    def draw(self) -> None:
        """Write both files, of which a reader never sees half; a block of rows is in memory."""
        sizes = (self.num_rows, self.num_features, self.num_classes)
        shape, labels = sizes[:2], []
        header = {"descr": _DTYPE.str, "fortran_order": False, "shape": shape}
        with atomic_write(self.path) as temporary, temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for rows, some in frames(*sizes, seed=1 + (self.split == "test")):
                file.write(rows.half().numpy().astype(_DTYPE, copy=False).data)
                labels.append(some)
        with atomic_write(labels_file(self.path)) as temporary, temporary.open("wb") as file:
            np.save(file, torch.cat(labels).numpy(), allow_pickle=False)

    def remove(self) -> None:
        """Delete both files."""
        for path in (self.path, labels_file(self.path)):
            path.unlink(missing_ok=True)


def draw_missing(files: list[TallFile]) -> list[TallFile]:
    """Draw those files that are not there, and return them; end the command without the space."""
    missing = [file for file in files if not file.exists()]
    if not missing:
        return []
    folder, needed = missing[0].folder, sum(file.num_bytes for file in missing)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise SystemExit(
            f"{folder} has {size_text(free)} free, and the rows take {size_text(needed)}; expected "
            "more space: give another --folder, or fewer --rows"
        )
    for file in missing:
        file.draw()
    return missing


def _holds(path: Path, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> bool:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return bool(found.shape == shape and found.dtype == dtype)
