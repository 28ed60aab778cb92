"""The idx format of MNIST and its relatives: a magic number, big-endian sizes, raw bytes.

Format: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits". The magic
number is two zero bytes, the element type (8: unsigned byte) and the number of dimensions.
"""

import math
import struct
from collections.abc import Sequence

import torch
from torch import Tensor

from linprobe.runtime.errors import LinprobeError


def parse_idx(raw: bytes, shape: Sequence[int], name: str) -> Tensor:
    """Read a decompressed idx file, called `name` in messages, as uint8 with memory of its own.

    Raises:
        LinprobeError: The magic number, a size or the length isn't what `shape` asks for.
    """
    magic = bytes([0, 0, 8, len(shape)])
    if raw[:4] != magic:
        raise LinprobeError(
            f"{name} is not an idx file of {len(shape)}-dimensional unsigned bytes: "
            f"it begins with 0x{raw[:4].hex()}, expected 0x{magic.hex()}"
        )
    start = 4 + 4 * len(shape)
    sizes = struct.unpack(f">{len(shape)}I", raw[4:start]) if len(raw) >= start else ()
    if sizes != tuple(shape):
        raise LinprobeError(f"{name} declares the shape {sizes}, expected {tuple(shape)}")
    expected = start + math.prod(shape)
    if len(raw) != expected:
        raise LinprobeError(f"{name} has {len(raw):,} bytes, expected {expected:,}")
    return torch.frombuffer(bytearray(raw[start:]), dtype=torch.uint8).reshape(tuple(shape))
