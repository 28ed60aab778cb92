"""How the tensor at a tap becomes rows of features."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from linprobe.activations.pooling import FLATTEN, Reducer
from linprobe.activations.tokens import Tokens, check_tokens, kept_tokens, pick_tokens
from linprobe.runtime.errors import LinprobeError

_TOKENS = "tokens="


@dataclass(frozen=True)
class Reduction:
    """The rule of one layer, which its record states.

    Attributes:
        tokens: which tokens of (n_samples, n_tokens, n_features) count; None: there are none.
        reducer: of what is left.
    """

    tokens: Tokens = None
    reducer: Reducer = FLATTEN

    def stated(self, sample_shape: Sequence[int]) -> str | None:
        """The rule in words that `parse` reads; None where nothing is to be said.

        Args:
            sample_shape: of the layer, without samples.
        """
        parts = [] if self.tokens is None else [f"{_TOKENS}{self.tokens}"]
        inner = sample_shape[1:] if parts else sample_shape
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
        reducer = FLATTEN
        for part in text.split(", ") if text else ():
            if part.startswith(_TOKENS):
                name = part.removeprefix(_TOKENS)
                tokens = int(name) if name.lstrip("-").isdecimal() else name
                check_tokens(tokens)
            else:
                reducer = Reducer.parse(part)
        return cls(tokens, reducer)

    def inner_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of what the reducer is given, without rows."""
        return tuple(sample_shape if self.tokens is None else sample_shape[1:])

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
        if self.tokens is not None:
            values = self._pick(values, mask, labels)
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
    """

    layer: str
    tap: str
    sample_dimension: int
    reduction: Reduction
    stated: str | None
    num_features: int
    dtype: torch.dtype
    columns: Tensor | None

    @property
    def kept_dtype(self) -> torch.dtype:
        """Dtype of the features: float64 of float64 activations, else float32."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def is_plain(self) -> bool:
        """Whether a batch's activations are its rows of features, flattened."""
        return self.sample_dimension == 0 and self.reduction == Reduction()
