"""The idx format of MNIST and its relatives: a magic number, big-endian sizes, raw bytes.

Format: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits". The magic
number is two zero bytes, the element type (8: unsigned byte) and the number of dimensions.
"""

import struct
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from linprobe.runtime.errors import LinprobeError

_UNSIGNED_BYTE = 8


def parse_idx(raw: bytes, shape: Sequence[int], name: str) -> Tensor:
    """Read the unsigned bytes of an idx file whose shape is known.

    Args:
        raw: the whole file, decompressed.
        shape: the shape that the file must declare and fill exactly.
        name: what messages call the file.

    Returns:
        A uint8 tensor of `shape` with memory of its own.

    Raises:
        LinprobeError: when the magic number, a size or the length is not the expected one.
    """
    magic = bytes([0, 0, _UNSIGNED_BYTE, len(shape)])
    if raw[:4] != magic:
        raise LinprobeError(
            f"{name} is not an idx file of {len(shape)}-dimensional unsigned bytes: "
            f"it begins with 0x{raw[:4].hex()}, expected 0x{magic.hex()}"
        )
    start = 4 + 4 * len(shape)
    sizes = struct.unpack(f">{len(shape)}I", raw[4:start]) if len(raw) >= start else ()
    if sizes != tuple(shape):
        raise LinprobeError(f"{name} declares the shape {sizes}, expected {tuple(shape)}")
    expected = start + int(np.prod(shape))
    if len(raw) != expected:
        raise LinprobeError(f"{name} has {len(raw):,} bytes, expected {expected:,}")
    values = np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(tuple(shape))
    return torch.from_numpy(values.copy())
