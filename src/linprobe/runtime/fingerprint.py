"""A hash of data, networks and settings, by which a later call knows what an earlier one did."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_BLOCK = 2**22  # bytes that are hashed at a time


@runtime_checkable
class InBlocks(Protocol):
    """Something on disk that gives its bytes itself, so that they are never all in memory."""

    def byte_blocks(self) -> Iterator[bytes]:
        """Yield all bytes that count."""
        ...


class Fingerprint:
    """A hash that values are added to, one after the other.

    Of tensors and arrays every byte counts, of a network its parameters, its buffers and what it
    prints as, of a function its code and what it encloses; of other objects what they print as.
    """

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self._open: set[int] = set()

    @property
    def text(self) -> str:
        """The hash of what was added so far, in hexadecimal digits."""
        return self._hash.hexdigest()

    def add(self, *values: object) -> None:
        """Add values."""
        for value in values:
            # What holds itself, as a recursive function does, is entered once.
            if id(value) in self._open:
                continue
            self._open.add(id(value))
            self._say(type(value).__qualname__)
            self._add(value)
            self._open.discard(id(value))

    def _add(self, value: Any) -> None:
        if isinstance(value, Tensor | np.ndarray):
            self._say(f"{value.dtype} {tuple(value.shape)}")
            self._array(value)
        elif isinstance(value, InBlocks):
            for block in value.byte_blocks():
                self._hash.update(block)
        elif isinstance(value, nn.Module):
            self._say(repr(value))
            for name, tensor in (*value.named_parameters(), *value.named_buffers()):
                self.add(name, tensor)
        elif is_dataclass(value) and not isinstance(value, type):
            self.add(*(getattr(value, field.name) for field in fields(value)))
        elif isinstance(value, Mapping):
            self.add(len(value), *(part for item in value.items() for part in item))
        elif isinstance(value, list | tuple):
            self.add(len(value), *value)
        elif isinstance(value, Set):
            self.add(sorted(map(repr, value)))
        elif isinstance(value, partial):
            self.add(value.func, value.args, value.keywords)
        elif isinstance(value, type):
            self._say(f"{value.__module__}.{value.__qualname__}")
        elif (code := getattr(value, "__code__", None)) is not None:
            cells = [cell.cell_contents for cell in value.__closure__ or ()]
            self._say(code.co_code.hex() + repr((code.co_names, code.co_consts)))
            self.add(value.__qualname__, value.__defaults__, cells)
        else:
            self._say(repr(value))

    def _say(self, text: str) -> None:
        self._hash.update(_ADDRESS.sub("", text).encode("utf-8", "surrogatepass") + b"\0")

    def _array(self, values: Tensor | np.ndarray) -> None:
        """Add all numbers, in blocks of rows: files may be mapped, and GPUs far away."""
        if isinstance(values, np.ndarray) and values.dtype.hasobject:
            self.add(values.tolist())
            return
        if isinstance(values, Tensor):
            values = values.detach()
            if values.is_meta:
                return
            if values.layout != torch.strided or values.is_nested:
                self._say(repr(values))
                return
        rows = values.reshape(1) if values.ndim == 0 else values
        size = max(1, rows.nbytes // max(1, len(rows)))
        step = max(1, _BLOCK // size)
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            if isinstance(block, Tensor):
                block = block.cpu().resolve_conj().resolve_neg().contiguous()
                block = block.view(torch.uint8).numpy()
            self._hash.update(np.ascontiguousarray(block).tobytes())
