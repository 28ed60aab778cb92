"""Read the dimensions of a layer's activation: samples, tokens, features, and its mask."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from linprobe.activations.globs import matching
from linprobe.activations.layers import sample_dimension, unknown_layer
from linprobe.activations.layout import Facts
from linprobe.activations.masks import is_signal, mask_of
from linprobe.activations.rules import LAYOUTS, count_tokens, fits
from linprobe.data.batches import Batch
from linprobe.data.tokens import Tokens
from linprobe.runtime.errors import LinprobeError

Layout = str | Mapping[str, str] | None


@dataclass(frozen=True)
class Activation:
    """A layer's output for an example.

    Attributes:
        shape: samples included.
        dtype: of its numbers.
        facts: what its operations tell.
        batch: the example.
        stated: layout that the user says it has; None: not said.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    facts: Facts
    batch: Batch
    stated: str | None

    @cached_property
    def dimension(self) -> int | None:
        """Dimension of the samples; None: there is none."""
        return sample_dimension(self.shape, len(self.batch))

    @cached_property
    def sample(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.shape[1:] if self.dimension != 1 else (self.shape[0], *self.shape[2:])

    @cached_property
    def layout(self) -> str | None:
        """The layout that is stated or told; None: neither, or there is but one dimension."""
        if len(self.sample) < 2:
            return None
        if self.stated is not None and fits(self.stated, len(self.shape)):
            return self.stated
        features = self.facts.features
        if self.dimension == 1 and features is not None:  # samples change places with tokens
            features = frozenset({0: 1, 1: 0}.get(axis, axis) for axis in features)
        layout = layout_of(features, len(self.shape))
        # Of a signal in one channel its mean is no use.
        return "features" if layout == "channels_first" and self.sample[0] == 1 else layout

    @cached_property
    def num_tokens(self) -> int | None:
        """Tokens of a sample; None: it is no sequence."""
        return count_tokens(self.layout, self.sample)

    @cached_property
    def mask(self) -> str | None:
        """Name of the mask that counts its tokens; None: all count."""
        return None if self.num_tokens is None else mask_of(self.batch, self.facts.origin)

    @cached_property
    def is_scaled(self) -> bool:
        """Tell whether its mask has another length."""
        return self.mask is not None and self.batch.masks[self.mask].shape[1] != self.num_tokens

    def unfit(self, tokens: Tokens) -> str | None:
        """Why it can't be probed by these tokens; None: it can."""
        shape, count = self.shape, len(self.batch)
        if self.dimension is None:
            return (
                f"gives shape {shape} for {count} samples; expected the samples along the "
                "first dimension: use select"
            )
        if 0 in self.sample:
            return f"gives shape {shape}, without features"
        if tokens is None:
            return None
        if self.num_tokens is None:
            needs = f"gives shape {shape}, without tokens; tokens='all' needs a row for each"
            return needs if tokens == "all" else None
        return self._unfit_labels() if tokens == "all" else self._unfit_mask()

    def _unfit_labels(self) -> str | None:
        labels = tuple(self.batch.labels.shape)
        if labels == (len(self.batch), self.num_tokens):
            return None
        return (
            f"gives {self.num_tokens} tokens, the labels have shape {labels}; expected as many: "
            "choose other layers, or select"
        )

    def _unfit_mask(self) -> str | None:
        if self.mask is None:
            return None
        shape = tuple(self.batch.masks[self.mask].shape)
        if len(shape) != 2:
            return (
                f"meets an {self.mask} of shape {shape}; expected (n_samples, n_tokens): give "
                "that, and let forward make the other of it"
            )
        if not self.is_scaled or is_signal(self.batch, self.facts.origin):
            return None
        return (
            f"gives {self.num_tokens} tokens, the attention mask has {shape[1]}; expected as many "
            "(a prompt or pooling changes their number): choose other layers, or select"
        )


def layout_of(features: Iterable[int] | None, ndim: int) -> str | None:
    """Name the layout of a tensor, samples first, whose features are in these dimensions."""
    found = None if features is None else sorted(features)
    if found == list(range(1, ndim)):
        return "features"
    named = {"channels_first": [1], "channels_last": [ndim - 1]}
    if ndim == 4:
        named |= {"heads_first": [1, 3], "heads_last": [2, 3]}
    return next((layout for layout, axes in named.items() if axes == found), None)


def check_layout(layout: object) -> None:
    """Refuse a layout that is unknown.

    Raises:
        LinprobeError: Neither a known name, nor a name for each pattern, nor None.
    """
    for name in layout.values() if isinstance(layout, Mapping) else [layout]:
        if name not in LAYOUTS and layout is not None:
            known = ", ".join(map(repr, LAYOUTS))
            raise LinprobeError(
                f"layout is {name!r}; expected {known}, one of these for each pattern of layers, "
                "or None"
            )


def layout_text(layout: Layout) -> str | None:
    """Write a layout as the command line takes it."""
    if isinstance(layout, Mapping):
        return ",".join(f"{pattern}={name}" for pattern, name in layout.items())
    return layout


def stated_layouts(layout: Layout, shapes: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Layouts that the user states, by layer.

    Args:
        layout: for all layers that it fits, or by pattern.
        shapes: of the layers.

    Raises:
        LinprobeError: A pattern without a layer, or a layer that its layout doesn't fit.
    """
    if isinstance(layout, str):
        return dict.fromkeys(shapes, layout)
    found: dict[str, str] = {}
    for pattern, name in (layout or {}).items():
        meant = [pattern] if pattern in shapes else matching(pattern, shapes)
        if not meant:
            raise LinprobeError(f"layout={pattern!r}: {unknown_layer(pattern, list(shapes))}")
        for layer in meant:
            if not fits(name, len(shapes[layer])):
                raise LinprobeError(
                    f"layer {layer!r} gives shape {tuple(shapes[layer])}, which the layout "
                    f"{name!r} doesn't fit; expected another one"
                )
        found |= dict.fromkeys(meant, name)
    return found
