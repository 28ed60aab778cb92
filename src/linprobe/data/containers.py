"""Arrays of strangers' containers: data frames, lists, arrays of other libraries.

Accepted is what holds numbers with one row per sample; the rest gets one line that names it and
what to do.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.text import first_line

_PAD = (
    "pad them, by the tokenizer or torch.nn.utils.rnn.pad_sequence, and give a dict with their "
    "attention_mask"
)
_TEXT = (
    "tokenise it first and give a dict of the tokenizer's arrays, with 'labels'; or leave it out"
)


def as_rows(value: Any, what: str) -> Any:
    """Return an array, or what slices like one, of numbers with one row per sample.

    Tensors and NumPy's arrays stay as they are; so do arrays of other libraries, which may lie on
    disk, until rows of them are read by `read_rows`. Data frames and lists become arrays.

    Args:
        value: an array, a list, a data frame, ...
        what: it is, for messages, such as "x of the train data".

    Raises:
        LinprobeError: Text, images, rows of different shapes, or tensors without dense values.
    """
    if isinstance(value, Tensor):
        return _dense(value, what)
    if isinstance(value, str | bytes):
        raise LinprobeError(f"{what} is text; {_TEXT}")
    if isinstance(value, list | tuple):
        return _stacked(value, what)
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise LinprobeError(f"{what} is a sparse {type(value).__name__}; give x.toarray()")
    if not isinstance(value, np.ndarray):
        sliced = isinstance(getattr(value, "dtype", None), np.dtype) and hasattr(value, "shape")
        if sliced and not hasattr(value, "iloc"):
            return value
        value = _array(value, what)
    return _numbers(value, what)


def read_rows(rows: Any) -> Any:
    """Read rows of what `as_rows` gave."""
    return rows if isinstance(rows, Tensor | np.ndarray | list) else np.asarray(rows)


def is_array(value: object) -> bool:
    """Tell whether a value is an array or a data frame of some library."""
    known = isinstance(value, Tensor | np.ndarray)
    return known or hasattr(value, "__array__") or hasattr(value, "__dlpack__")


def holds_samples(value: object) -> bool:
    """Tell whether a list holds a sample at each place: numbers, text, arrays or images."""
    if not isinstance(value, list | tuple) or not value:
        return False
    one = value[0]
    plain = isinstance(one, int | float | str | Tensor | np.ndarray | list) or is_array(one)
    return plain or _is_image(one)


def holds_text(value: object) -> bool:
    """Tell whether a value is a list of text, raw as it came."""
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def holds_labels(value: object) -> bool:
    """Tell whether a value can be the labels of samples, rather than a batch."""
    if not isinstance(value, list | tuple):
        return not isinstance(value, Mapping)
    return bool(value) and all(_is_label(label) for label in value)


def _is_label(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(isinstance(item, int | str) for item in value)
    return not isinstance(value, Mapping) and not np.ndim(value)  # type: ignore[arg-type]


def _is_image(value: object) -> bool:
    return hasattr(value, "getbands")  # as PIL's have


def _dense(tensor: Tensor, what: str) -> Tensor:
    if tensor.is_nested or tensor.layout != torch.strided:
        kind = "nested" if tensor.is_nested else "sparse"
        cure = "torch.nested.to_padded_tensor(x, 0)" if tensor.is_nested else "x.to_dense()"
        raise LinprobeError(f"{what} is a {kind} tensor; give {cure}")
    if tensor.is_meta:
        raise LinprobeError(f"{what} is on the device 'meta', without values; give a tensor")
    if tensor.is_quantized:
        raise LinprobeError(f"{what} is a quantised tensor; give x.dequantize()")
    return tensor


def _array(value: Any, what: str) -> np.ndarray:
    try:
        if not hasattr(value, "__array__") and hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise LinprobeError(
            f"{what} is a {type(value).__name__} that can't be read as an array "
            f"({first_line(error)}); expected numbers, one row per sample"
        ) from error


def _numbers(array: np.ndarray, what: str) -> np.ndarray:
    if array.dtype.kind in "OUST":
        first = next(iter(array.flat), None)
        text = isinstance(first, str | bytes)
        raise LinprobeError(
            f"{what} holds text; {_TEXT}"
            if text and array.ndim == 1
            else f"{what} has dtype {array.dtype}, {'text' if text else 'of any objects'}; "
            "expected numbers: leave other columns out, and give x.astype('float32')"
        )
    if not array.ndim:
        raise LinprobeError(f"{what} is a single value; expected an array with one row per sample")
    return array


def _stacked(rows: Sequence[Any], what: str) -> Tensor | np.ndarray:
    """Make an array of a list with an item for each sample."""
    if any(isinstance(row, str | bytes) for row in rows):
        raise LinprobeError(f"{what} holds text; {_TEXT}")
    if any(map(_is_image, rows)):
        raise LinprobeError(
            f"{what} holds images as {type(rows[0]).__module__}.{type(rows[0]).__name__}; give "
            "tensors: stack what the network's preprocessing makes of each"
        )
    try:
        shapes = [tuple(np.shape(row)) for row in rows]
    except ValueError:  # ragged further inside
        shapes = [(0,), (1,)]
    odd = next((place for place, shape in enumerate(shapes) if shape != shapes[0]), None)
    if odd is not None:
        whole = all(len(shape) == 1 for shape in shapes)
        raise LinprobeError(
            f"{what} is a list whose items differ in shape: {shapes[0]} first, {shapes[odd]} at "
            f"place {odd}; expected one shape: {_PAD if whole else 'pad, crop or resize them'}"
        )
    if rows and all(isinstance(row, Tensor) for row in rows):
        return torch.stack([_dense(row, what) for row in rows])
    return _numbers(_array([np.asarray(row) for row in rows], what), what)
