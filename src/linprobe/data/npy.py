"""NumPy's files, from anyone: arrays of numbers or text, and one line for whatever else they hold.

No object is unpickled, and no archive is unpacked to disk.
"""

import os
from pathlib import Path
from typing import IO

import numpy as np

from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.text import said


def map_npy(path: str | Path) -> np.ndarray:
    """Map a ``.npy`` file into memory, to be read as its rows are asked for.

    Raises:
        LinprobeError: No such file, or one that holds no array.
    """
    expected = "expected an array of (n_samples, n_features)"
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a file of others: NumPy raises many types
        raise LinprobeError(
            f"{os.fspath(path)} can't be read as .npy ({said(error)}); {expected}"
        ) from error
    if isinstance(mapped, np.ndarray):
        return mapped
    mapped.close()
    raise LinprobeError(
        f"{os.fspath(path)} is an archive of arrays; {expected}: save each one by np.save"
    )


def read_npz(path: Path, expected: str) -> dict[str, np.ndarray]:
    """Read all arrays of a ``.npz`` file, by their names.

    Args:
        path: of the file.
        expected: what is to be in it, for messages.

    Raises:
        LinprobeError: No such file, or one that holds something else.
    """
    try:
        # Opened here: NumPy leaves the file open where it is no whole zip file.
        with path.open("rb") as file:
            return _arrays(file, path, expected)
    except LinprobeError:
        raise
    except Exception as error:  # a file of others: zip files alone fail in ten ways
        raise LinprobeError(f"{path} can't be read as .npz ({said(error)}); {expected}") from error


def _arrays(file: IO[bytes], path: Path, expected: str) -> dict[str, np.ndarray]:
    found = np.load(file, allow_pickle=False)
    if isinstance(found, np.ndarray):
        raise LinprobeError(f"{path} is a single array; {expected}")
    arrays = {name: found[name] for name in found.files}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # NumPy gives other files as bytes
            raise LinprobeError(f"{path} holds {name!r}, which is no array; {expected}")
    return arrays
