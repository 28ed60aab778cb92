"""From NumPy's arrays to tensors."""

import numpy as np
import torch
from torch import Tensor

from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.numbers import native_dtype


def array_tensor(array: np.ndarray) -> Tensor:
    """Copy an array of numbers, in any order of bytes; longdouble becomes float64."""
    if np.ma.is_masked(array):
        raise LinprobeError(
            "a masked array has values that are missing; expected none: leave their samples out, "
            "or fill them"
        )
    # Copied: PyTorch warns of arrays that can't be written to, such as mapped files.
    return torch.from_numpy(np.array(array, native_dtype(array.dtype)))
