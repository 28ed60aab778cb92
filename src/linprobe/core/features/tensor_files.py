"""Rows of features in safetensors files, read where they lie."""

import json
import os
import struct
from pathlib import Path

import torch
from safetensors import safe_open

from linprobe.core.features.stores import FileRows
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.text import said

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_LENGTH = struct.Struct("<Q")  # of the header, at the file's begin


def safetensors_rows(path: str | Path) -> dict[str, FileRows]:
    """Open a ``.safetensors`` file of layers, each a tensor (num_rows, num_features).

    Nothing but the header is read; numbers keep their dtype, 16 bits among them.

    Raises:
        LinprobeError: No such file, one of another kind, or one with other tensors.
    """
    name = os.fspath(path)
    expected = "expected tensors (n_samples, n_features) by the names of layers"
    try:
        # The library checks that the header and its offsets are sound.
        with safe_open(name, "pt"), open(name, "rb") as file:
            (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
            header = json.loads(file.read(length))
    except Exception as error:  # a file of others
        raise LinprobeError(
            f"{name} can't be read as .safetensors ({said(error)}); {expected}"
        ) from error
    header.pop("__metadata__", None)
    for layer, found in header.items():
        if len(found["shape"]) != 2 or found["dtype"] not in _DTYPES:
            raise LinprobeError(
                f"{name} holds {layer!r} of shape {tuple(found['shape'])} and dtype "
                f"{found['dtype']}; {expected}: flatten or pool each sample"
            )
    start = _LENGTH.size + length
    return {
        layer: FileRows(
            name,
            (found["shape"][0], found["shape"][1]),
            _DTYPES[found["dtype"]],
            start + found["data_offsets"][0],
        )
        for layer, found in header.items()
    }
