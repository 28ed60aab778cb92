"""Batches of data, split into the arguments of a network and the labels."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from linprobe.data.arrays import array_tensor
from linprobe.data.labels import Names, read_labels
from linprobe.data.tokens import kept_by
from linprobe.runtime.devices import supports_float64
from linprobe.runtime.errors import LinprobeError

LABEL_KEYS = ("labels", "label")
MASK_KEY = "attention_mask"


@dataclass(frozen=True)
class Batch:
    """A batch of samples.

    Attributes:
        raw: as the data gave it, arrays turned into tensors.
        args: positional arguments of the network.
        kwargs: keyword arguments of the network.
        labels: (n_samples,), or (n_samples, n_tokens), int64 on the CPU.
        masks: attention masks by their names, (n_samples, n_tokens) bool, True where a token
            counts; those that aren't of a token each, for queries and keys say, as they are.
        names: of labels that aren't numbers, by what stands for them in `labels`.
    """

    raw: object
    args: tuple[object, ...]
    kwargs: dict[str, object]
    labels: Tensor
    masks: dict[str, Tensor]
    names: Names = field(default_factory=dict)

    @classmethod
    def read(cls, raw: object, split: str) -> "Batch":
        """Split a batch of the `split` into arguments and labels.

        Raises:
            LinprobeError: It is neither a tuple nor a dict with labels.
        """
        raw = _map(raw, lambda tensor: tensor)  # arrays become tensors
        if any(isinstance(leaf, Tensor) and leaf.is_meta for leaf in leaves(raw)):
            raise LinprobeError(
                f"a {split} batch holds a tensor on the device 'meta', without values; expected "
                "one with values"
            )
        if isinstance(raw, Mapping):
            key = label_key(raw, f"a {split} batch")
            args: list[Any] = [{name: item for name, item in raw.items() if name != key}]
            labels = raw[key]
        elif isinstance(raw, tuple | list) and len(raw) >= 2:
            *args, labels = raw
        else:
            raise LinprobeError(
                f"a {split} batch is a {type(raw).__name__}; expected (x, labels), or a dict with "
                "'labels'"
            )
        labels, names = read_labels(labels, split)
        if labels.ndim == 0:
            raise LinprobeError(
                f"the labels of a {split} batch are one label; expected one for each sample: put "
                "single samples into batches by a DataLoader"
            )
        if len(args) != 1 or not isinstance(args[0], Mapping):
            return cls(raw, tuple(args), {}, labels, {}, names)
        inputs = {str(name): item for name, item in args[0].items()}
        masks = {
            name: _token_mask(item)
            for name, item in inputs.items()
            if name.endswith(MASK_KEY) and isinstance(item, Tensor)
        }
        return cls(raw, (), inputs, labels, masks, names)

    @property
    def mask(self) -> Tensor | None:
        """The attention mask, where it has a number for each token."""
        mask = self.masks.get(MASK_KEY)
        return mask if mask is not None and mask.ndim == 2 else None

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Tensors that the network takes by name."""
        return {name: x for name, x in self.kwargs.items() if isinstance(x, Tensor)}

    def __len__(self) -> int:
        return len(self.labels)

    def head(self, count: int) -> "Batch":
        """Return the first samples if every value is a tensor with one row per sample, else all."""
        rows = [leaf.shape[:1] if _slices(leaf) else None for leaf in leaves(self.raw)]
        if any(row != (len(self),) for row in rows):
            return self
        return Batch.read(_map(self.raw, lambda tensor: tensor[:count], text=True), "data")

    def to(
        self, device: torch.device, dtype: torch.dtype | None = None, *, whole: bool = False
    ) -> "Batch":
        """Copy to that device, the network's arguments in that floating dtype where they have one.

        Copied in any case: the network's first layer may work in place. Where the device has no
        float64, what is float64 becomes float32. `whole`: the raw batch gets the dtype too.
        """
        exact = supports_float64(device)

        def moved(tensor: Tensor) -> Tensor:
            narrowed = tensor.dtype == torch.float64 and not exact
            return tensor.to(device, torch.float32 if narrowed else None, copy=True)

        def cast(tensor: Tensor) -> Tensor:
            if dtype is None or not tensor.is_floating_point():
                return moved(tensor)
            return tensor.to(device, dtype, copy=True)

        return Batch(
            _map(self.raw, cast if whole else moved),
            tuple(_map(value, cast) for value in self.args),
            {name: _map(value, cast) for name, value in self.kwargs.items()},
            self.labels,
            self.masks,
            self.names,
        )


def _slices(leaf: object) -> TypeGuard[Tensor | np.ndarray]:
    if isinstance(leaf, Tensor):
        return not leaf.is_nested and leaf.layout == torch.strided
    return isinstance(leaf, np.ndarray)


def _token_mask(mask: Tensor) -> Tensor:
    """Reduce (n_samples, 1, 1, n_tokens), one row for all heads and queries, and read the mask."""
    if mask.ndim > 2 and math.prod(mask.shape[1:-1]) == 1:
        mask = mask.flatten(1)
    return kept_by(mask) if mask.ndim == 2 else mask


def label_key(named: Mapping[Any, object], what: str) -> str:
    """Find the key of the labels in a dict, which messages call `what`."""
    for key in LABEL_KEYS:
        if key in named:
            return key
    names = ", ".join(map(repr, named))
    raise LinprobeError(f"{what} has the keys {names}; expected its labels under 'labels'")


def _map(value: object, change: Callable[[Any], Any], *, text: bool = False) -> Any:
    """Change each tensor in nested containers; arrays become tensors first, but those of text."""
    if isinstance(value, Tensor) or (text and isinstance(value, np.ndarray)):
        return change(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return change(array_tensor(value))
    if isinstance(value, Mapping):
        return {name: _map(item, change, text=text) for name, item in value.items()}
    if type(value) is list:
        return [_map(item, change, text=text) for item in value]
    if type(value) is tuple:  # not its subclasses, which take their items otherwise
        return tuple(_map(item, change, text=text) for item in value)
    return value


def leaves(value: Any) -> Iterator[object]:
    """Yield the values in nested containers, in order."""
    if not isinstance(value, Mapping) and type(value) not in (list, tuple):
        yield value
        return
    for item in value.values() if isinstance(value, Mapping) else value:
        yield from leaves(item)
