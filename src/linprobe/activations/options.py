"""Options of extraction: how a network is run and how its activations become features."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from linprobe.runtime.numbers import as_whole, positive_number, whole_number

if TYPE_CHECKING:
    import torch

    from linprobe.activations.layers import Forward
    from linprobe.activations.taps import Select
    from linprobe.activations.tokens import Tokens


@dataclass(frozen=True)
class ExtractionOptions:
    """Options of how a network is run, and how its activations become features.

    Attributes:
        reduce: "flatten", "mean", "max", "pool:K", "random:M", or "auto": flatten what fits the
            memory, and pool the rest into as many cells as fit, or one. The report states what was
            done.
        tokens: of sequences: "last", "first", "mean", an index, or "all" for a row a token with a
            label each (-100: none). An attention mask is honoured. None: the dimensions are no
            tokens, and `reduce` takes them.
        layout: of activations (n, channels, places...): "channels_first"; of (n, places...,
            channels): "channels_last"; of four dimensions: "heads_first" (n, heads, tokens,
            features) or "heads_last"; "features": no places. Or one of these for each pattern of
            layers. None: told from the network's operations.
        batch_size: samples in a forward pass, where the data doesn't come in batches.
        memory_bytes: for the features held at a time; None: 40 % of the free memory. A layer that
            is larger, though reduced as asked, is written to a temporary folder (beside `out`, or
            that of TMPDIR) and streamed from there.
        device: where features are kept and probes are solved; None: the network's device. The CPU
            instead of a device without float64, such as Apple's "mps".
        forward: ``f(network, batch)``, runs the network where it isn't simply called.
        select: ``f(name, value)``, picks the tensor of a layer that gives something else than a
            tensor; None: the first tensor in it.
        strict: raise when a layer fails, instead of going on with the others.
        float64: run a copy of the network in float64, and subtract the mean before anything is
            rounded. None: for the layers whose probes are `rounded`: where the rounding of the
            network's own arithmetic is 1 % or more of what varies (10 % in 16 bits), or counts in
            what the probe uses; True: for all layers; False: for none.
    """

    reduce: str = "auto"
    tokens: "Tokens" = "mean"
    layout: str | Mapping[str, str] | None = None
    batch_size: int = 256
    memory_bytes: float | None = None
    device: "torch.device | str | None" = None
    forward: "Forward | None" = None
    select: "Select | None" = None
    strict: bool = False
    float64: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "batch_size", whole_number("batch_size", self.batch_size, 1))
        if (index := as_whole(self.tokens)) is not None:
            object.__setattr__(self, "tokens", index)
        if (held := self.memory_bytes) is not None:
            held = positive_number("memory_bytes", held, "a positive number of bytes, or None")
            object.__setattr__(self, "memory_bytes", held)
