"""Weights from files for a network: what of a checkpoint fits, and what doesn't."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from linprobe.activations.checkpoint_files import read_checkpoint
from linprobe.activations.taps import plain_path, unwrapped
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.files import file_sha256
from linprobe.runtime.text import counted

_NUM_SHOWN, _NUM_LISTED = 3, 8


@dataclass(frozen=True)
class Loaded:
    """The fate of a checkpoint.

    Attributes:
        sha256: of the file.
        key: of the dict in the file whose tensors were taken, such as "model"; "": of the file's.
        prefix: of their names there.
        random: tensors of the network that the checkpoint does not give.
        unused: tensors of that dict that the network does not have.
    """

    sha256: str
    key: str
    prefix: str
    random: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what a reader would not expect."""
        said = []
        if self.random:
            said.append(
                f"The checkpoint does not give {counted(len(self.random), 'tensor')} of the "
                f"network, which stay as made: {_some(self.random, _NUM_LISTED)}."
            )
        if self.unused:
            said.append(
                f"Not used of the checkpoint: {_some(self.unused, _NUM_LISTED)} "
                f"({counted(len(self.unused), 'tensor')})."
            )
        return tuple(said)


def load_weights(
    network: nn.Module,
    path: Path,
    *,
    key: str | None = None,
    prefix: str | None = None,
    partial: bool = False,
) -> Loaded:
    """Load a checkpoint into `network`.

    Args:
        network: on any device.
        path: ``.safetensors``, or what `torch.save` wrote: a state dict, dicts that hold one
            beside anything else, or a whole network. Only tensors are read; objects of other
            classes are left out, and no code of the file or of these classes is run.
        key: of the dict to take, such as "teacher" or "state_dict.model"; None: the one whose
            tensors fit, if there is one only.
        prefix: of the names of the network's tensors there, such as "backbone."; None: the one
            with which they fit.
        partial: take what fits, where not every tensor of the network is given, or others are.

    Raises:
        LinprobeError: The file can't be read, or its tensors aren't those of the network.
    """
    network = unwrapped(network)
    names = {plain_path(name): name for name in network.state_dict()}
    own = {
        plain_path(name): value
        for name, value in network.state_dict().items()
        if isinstance(value, Tensor)  # what modules add of other kinds isn't read from files
    }
    if prefix and not prefix.endswith("."):
        prefix += "."
    found = _chosen(read_checkpoint(path), own, path, key, prefix)
    given = {
        name.removeprefix(found.prefix): value
        for name, value in found.state.items()
        if name.startswith(found.prefix)
    }
    _check_fit(own, given, path, partial)
    fits = {name: value for name, value in given.items() if _fits(own, name, value)}
    _put(network, {names[name]: value for name, value in fits.items()}, path)
    unused = tuple(n for n in found.state if n.removeprefix(found.prefix) not in fits)
    random = tuple(_missing(own, fits))
    return Loaded(file_sha256(path), found.key, found.prefix, random, unused)


def _put(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    try:
        network.load_state_dict(state, strict=False)
    except Exception as error:  # modules may have code of their own for it
        said = " ".join(str(error).split())[:300]
        raise LinprobeError(
            f"checkpoint {path} holds tensors that the network doesn't take ({said}); expected "
            "those of the same network: the weights may now be in part from the file"
        ) from error


@dataclass(frozen=True)
class _Found:
    """A dict of tensors of a file, and the prefix of a network's names in it."""

    key: str
    state: dict[str, Tensor]
    prefix: str
    num_fitting: int


def _chosen(
    dicts: Mapping[str, dict[str, Tensor]],
    own: Mapping[str, Tensor],
    path: Path,
    key: str | None,
    prefix: str | None,
) -> _Found:
    """The dict and the prefix that fit best; refuse to choose among several."""
    known = [name for name, state in dicts.items() if state]
    if not known:
        raise LinprobeError(
            f"checkpoint {path} holds no tensors by name; expected a state dict, or a dict of some"
        )
    if key is not None and key not in known:
        raise LinprobeError(
            f"checkpoint {path} has no tensors under checkpoint_key={key!r}; it has some under "
            f"{_some(known, _NUM_LISTED)}"
        )
    found = [
        _Found(name, dicts[name], start, sum(_fits(own, n, dicts[name][start + n]) for n in names))
        for name in (known if key is None else [key])
        for start, names in _prefixes(dicts[name], own, prefix).items()
    ]
    most = max((one.num_fitting for one in found), default=0)
    if not most:
        if prefix:
            raise LinprobeError(
                f"checkpoint {path} has no tensors that fit under checkpoint_prefix={prefix!r}; it "
                f"has {_some(list(dicts[known[0] if key is None else key]), _NUM_SHOWN)}"
            )
        state = max((dicts[name] for name in known), key=len)
        return _Found("", state, "", 0)
    best = [one for one in found if one.num_fitting == most]
    # Names that agree as they are need no prefix.
    best = [one for one in best if not one.prefix] or best
    if any(not _same(one, best[0], own) for one in best[1:]):
        places = [f"key {one.key!r} prefix {one.prefix!r}" for one in best]
        raise LinprobeError(
            f"checkpoint {path} holds several sets of tensors that fit the network: "
            f"{_some(places, _NUM_LISTED)}; choose by checkpoint_key or checkpoint_prefix"
        )
    return best[0]


def _prefixes(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], prefix: str | None
) -> dict[str, list[str]]:
    """The network's names in a dict, by the prefixes that they have there."""
    if prefix is not None:
        return {prefix: [name for name in own if prefix + name in state]}
    prefixes: dict[str, list[str]] = {}
    for name in state:
        starts = [0, *(place.end() for place in re.finditer(r"\.", name))]
        for start in starts:
            if name[start:] in own:
                prefixes.setdefault(name[:start], []).append(name[start:])
    return prefixes


def _same(one: _Found, other: _Found, own: Mapping[str, Tensor]) -> bool:
    pairs = (
        (one.state.get(one.prefix + name), other.state.get(other.prefix + name)) for name in own
    )
    return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


def _fits(own: Mapping[str, Tensor], name: str, value: Tensor) -> bool:
    return name in own and own[name].shape == value.shape and _is_alike(own[name], value)


def _is_alike(own: Tensor, value: Tensor) -> bool:
    """Tell whether numbers can be copied: from a sparse or quantised tensor they can't."""
    kinds = [(t.layout, t.is_quantized, t.is_nested) for t in (own, value)]
    has_values = own.is_meta or not value.is_meta
    return kinds[0] == kinds[1] and has_values and own.is_complex() >= value.is_complex()


def _missing(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Tensors of the network that nothing is given for, under any of their names."""
    shared = {own[name].data_ptr() for name in own if name in given and own[name].numel()}
    return [
        name
        for name in own
        # Files of before 2018 don't count the batches.
        if not (name in given or own[name].data_ptr() in shared or name.endswith("batches_tracked"))
    ]


def _check_fit(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path, partial: bool
) -> None:
    if partial and any(_fits(own, name, value) for name, value in given.items()):
        return
    problems = {
        "lacks": _missing(own, given),
        "has, unlike the network,": [name for name in given if name not in own],
        "has other shapes for": [
            f"{name} {tuple(value.shape)} instead of {tuple(own[name].shape)}"
            for name, value in given.items()
            if name in own and own[name].shape != value.shape
        ],
        "has no plain numbers for": [
            f"{name} ({_kind(value)})"
            for name, value in given.items()
            if name in own and own[name].shape == value.shape and not _is_alike(own[name], value)
        ],
    }
    found = [f"{what} {_some(names, _NUM_SHOWN)}" for what, names in problems.items() if names]
    if found:
        raise LinprobeError(
            f"checkpoint {path} doesn't fit the network: it {'; it '.join(found)}; give the "
            "factory that the checkpoint was made with, or partial=True to take what fits"
        )


def _kind(value: Tensor) -> str:
    odd = "meta, without values" if value.is_meta else str(value.layout).removeprefix("torch.")
    return f"{odd}, {str(value.dtype).removeprefix('torch.')}"


def _some(names: list[str] | tuple[str, ...], count: int) -> str:
    more = len(names) - count
    return ", ".join(names[:count]) + (f" and {more} more" if more > 0 else "")
