"""Rules by which the tensor at a tap becomes rows of features."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from linprobe.activations.pooling import FLATTEN, Reducer
from linprobe.activations.tokens import Tokens, check_tokens, kept_by, kept_tokens, pick_tokens
from linprobe.runtime.errors import LinprobeError

_TOKENS = "tokens="
LAYOUTS = ("channels_first", "channels_last", "heads_first", "heads_last", "features")
"""Dimensions after the samples: channels, places...; places..., channels; heads, tokens, features;
tokens, heads, features; or features alone, in all dimensions."""


@dataclass(frozen=True)
class Reduction:
    """The rule of one layer, which its record states.

    Attributes:
        tokens: which tokens of (n_samples, n_tokens, n_features) count; None: there are none.
        reducer: of what is left.
        layout: one of `LAYOUTS`; None: tokens and features where tokens are picked, else channels
            first.
    """

    tokens: Tokens = None
    reducer: Reducer = FLATTEN
    layout: str | None = None

    def stated(self, sample_shape: Sequence[int]) -> str | None:
        """The rule in words that `parse` reads; None where nothing is to be said.

        Args:
            sample_shape: of the layer, without samples.
        """
        parts = [] if self.layout is None else [self.layout]
        parts += [] if self.tokens is None else [f"{_TOKENS}{self.tokens}"]
        inner = self.inner_shape(sample_shape)
        if self.reducer != FLATTEN or len(inner) > 1:
            parts.append(str(self.reducer))
        return ", ".join(parts) or None

    @classmethod
    def parse(cls, text: str | None) -> "Reduction":
        """Read what `stated` gives.

        Raises:
            LinprobeError: Another text.
        """
        tokens: Tokens = None
        reducer, layout = FLATTEN, None
        for part in text.split(", ") if text else ():
            if part.startswith(_TOKENS):
                name = part.removeprefix(_TOKENS)
                tokens = int(name) if name.lstrip("-").isdecimal() else name
                check_tokens(tokens)
            elif part in LAYOUTS:
                layout = part
            else:
                reducer = Reducer.parse(part)
        return cls(tokens, reducer, layout)

    def inner_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of what the reducer is given, without rows."""
        whole = self.arranged(torch.empty(1, *sample_shape, device="meta")).shape[1:]
        return tuple(whole if self.tokens is None else whole[1:])

    def arranged(self, values: Tensor) -> Tensor:
        """Put the dimensions of (n_samples, ...) where tokens are picked, or reducers pool.

        Raises:
            LinprobeError: A shape that the layout doesn't fit.
        """
        if self.layout is None:
            return values
        if not fits(self.layout, values.ndim):
            raise LinprobeError(
                f"shape {tuple(values.shape)} doesn't fit the layout {self.layout!r}; expected "
                "(n_samples, channels, places...), or four dimensions where there are heads"
            )
        if self.layout == "features":
            return values.flatten(1)
        if self.layout == "heads_first":
            values = values.transpose(1, 2)
        if self.layout.startswith("heads"):
            values = values.flatten(2)
        if self.layout == "channels_first":
            values = values.movedim(1, -1)
        return values if self.tokens is not None else values.movedim(-1, 1)

    def apply(
        self,
        values: Tensor,
        *,
        mask: Tensor | None = None,
        labels: Tensor | None = None,
        columns: Tensor | None = None,
    ) -> Tensor:
        """Make rows of features, (n_rows, n_features), of values (n_samples, ...).

        Args:
            values: of the layer.
            mask: (n_samples, n_tokens), nonzero where a token counts.
            labels: (n_samples, n_tokens), for tokens "all"; None: all that the mask keeps.
            columns: of a random reducer.

        Raises:
            LinprobeError: A shape that the rule does not fit.
        """
        values = self.arranged(values)
        if self.tokens is not None:
            values = self._pick(values, None if mask is None else kept_by(mask), labels)
        if values.is_complex():
            raise LinprobeError("the values are complex; expected real ones: use select")
        return self.reducer.apply(values, columns)

    def _pick(self, values: Tensor, mask: Tensor | None, labels: Tensor | None) -> Tensor:
        if values.ndim != 3:
            raise LinprobeError(
                f"shape {tuple(values.shape)} has no tokens; expected (n_samples, n_tokens, "
                "n_features)"
            )
        for name, other in (("attention mask", mask), ("labels", labels)):
            if other is not None and other.shape != values.shape[:2]:
                raise LinprobeError(
                    f"shape {tuple(values.shape)} has {values.shape[1]} tokens, the {name} "
                    f"{tuple(other.shape)}; expected as many: choose other layers, or select"
                )
        if self.tokens != "all":
            return pick_tokens(values, mask, self.tokens)
        if labels is None:
            labels = torch.zeros(values.shape[:2], dtype=torch.int64)
        return values[kept_tokens(labels, mask).to(values.device)]


def fits(layout: str, ndim: int) -> bool:
    """Tell whether a tensor of that many dimensions can have the layout."""
    return ndim == 4 if layout.startswith("heads") else ndim >= (2 if layout == "features" else 3)


def count_tokens(layout: str | None, sample_shape: Sequence[int]) -> int | None:
    """Count the tokens of a sample; None: it is no sequence."""
    ndim = len(sample_shape)
    if layout == "features" or (ndim != 2 and not (layout or "").startswith("heads")) or ndim < 2:
        return None
    return sample_shape[1 if layout in ("channels_first", "heads_first") else 0]


@dataclass(frozen=True)
class ProbePoint:
    """A layer, its tap and its rule.

    Attributes:
        layer: its name.
        tap: where it is captured.
        sample_dimension: 0, or 1 where tokens stand before samples.
        reduction: the rule.
        stated: the rule as the record states it.
        num_features: of a row.
        dtype: of the activations.
        columns: of a random reducer.
        mask: name of the mask that counts the tokens; None: all count.
        is_guessed: the layout could not be told, and matters.
        is_spared: there is a mask, of other tokens.
        is_scaled: the mask has another length than the layer has tokens.
        base: (num_features,) float64 that the features are the deviations from; None: zero.
    """

    layer: str
    tap: str
    sample_dimension: int
    reduction: Reduction
    stated: str | None
    num_features: int
    dtype: torch.dtype
    columns: Tensor | None
    mask: str | None = None
    is_guessed: bool = False
    is_spared: bool = False
    is_scaled: bool = False
    base: Tensor | None = None

    @property
    def kept_dtype(self) -> torch.dtype:
        """Dtype of the features: float64 of float64 activations, else float32."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def is_plain(self) -> bool:
        """Tell whether a batch's activations are its rows of features, flattened."""
        return self.sample_dimension == 0 and self.reduction == Reduction()
