"""Tensors from files of weights, of which no code is run."""

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import safe_globals

from linprobe.activations.taps import plain_path
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.tensors import read_tensors

_DEPTH = 4  # dicts inside dicts that are looked into
_DEEPEST = 64  # modules inside modules
_MOST = 100_000  # modules or dicts: those of a file may hold themselves
_UNKNOWN = re.compile(r"GLOBAL (\S+) was not an allowed global")


def read_checkpoint(path: Path) -> dict[str, dict[str, Tensor]]:
    """Read the dicts of tensors in a file, by the keys that lead to them; "": the file's own.

    Args:
        path: ``.safetensors``, or what `torch.save` wrote. Only tensors are read; objects of other
            classes are left out, and no code of the file or of these classes is run.

    Raises:
        LinprobeError: The file can't be read.
    """
    return dict(islice(_dicts(_read(path)), _MOST))


def _read(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            return read_tensors(path, "expected a whole safetensors file")[0]
        return _unpickled(path)
    except LinprobeError as error:
        raise LinprobeError(f"checkpoint {error}") from error
    except OSError as error:
        raise LinprobeError(
            f"checkpoint {path} can't be read ({error.strerror or error})"
        ) from error
    except Exception as error:  # torch.load raises many types
        raise LinprobeError(
            f"checkpoint {path} is no file of tensors ({type(error).__name__}); expected what "
            "torch.save(network.state_dict(), FILE) writes; others could run code and aren't read"
        ) from error


class _Inert:
    """Stands for an object of a class that isn't loaded; remembers what it was to hold."""

    state: object = None

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __hash__(self) -> int:
        return id(self)


def _unpickled(path: Path) -> object:
    """Load a file by PyTorch's reader of weights, with a stand-in for every class unknown to it."""
    stand_ins: dict[str, type] = {}
    written_to: set[str] = set()
    while True:
        try:
            with safe_globals([(made, name) for name, made in stand_ins.items()]):
                return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            if unknown := _UNKNOWN.search(str(error)):
                name = unknown[1] if "." in unknown[1] else f"builtins.{unknown[1]}"
                if name in stand_ins:
                    raise
                stand_ins[name] = type(name, (_Inert,), {})
                continue
            # One that is written to as a dict or a list, which the reader allows of these only.
            odd = [name for name, made in stand_ins.items() if repr(made) in str(error)]
            kind = list if "list" in str(error).partition("but got")[0] else OrderedDict
            if not odd or odd[0] in written_to:
                raise
            written_to.add(odd[0])
            stand_ins[odd[0]] = type(odd[0], (), {"__new__": lambda *_, made=kind, **__: made()})


def _dicts(found: object, key: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Dicts of tensors by name, in dicts and whole networks, with the keys that lead to them."""
    if isinstance(found, _Inert):
        yield key, dict(_module_tensors(found))
    elif isinstance(found, Mapping):
        yield (
            key,
            {
                plain_path(name): value
                for name, value in found.items()
                if isinstance(name, str) and isinstance(value, Tensor)
            },
        )
        for name, value in found.items():
            if isinstance(name, str) and depth < _DEPTH:
                yield from _dicts(value, f"{key}.{name}".lstrip("."), depth + 1)


def _module_tensors(module: _Inert) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a network that was saved whole, as its state dict names them."""
    left: list[tuple[tuple[str, ...], _Inert]] = [((), module)]
    for _ in range(_MOST):
        if not left:
            return
        outer, one = left.pop()
        state = _as_dict(one.state)
        passing = state.get("_non_persistent_buffers_set")
        passing = passing if isinstance(passing, set | frozenset) else ()
        for kind in ("_parameters", "_buffers"):
            for name, value in _as_dict(state.get(kind)).items():
                if isinstance(value, Tensor) and name not in passing:
                    yield ".".join((*outer, name)), value.detach()
        inside = _as_dict(state.get("_modules")).items() if len(outer) < _DEEPEST else ()
        inner = [((*outer, name), it) for name, it in inside if isinstance(it, _Inert)]
        left += reversed(inner)


def _as_dict(value: object) -> dict[str, Any]:
    """Give what stands under names in a file, where anything may."""
    found = value if isinstance(value, Mapping) else {}
    return {name: item for name, item in found.items() if isinstance(name, str)}
