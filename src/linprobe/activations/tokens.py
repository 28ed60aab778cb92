"""From sequences to rows: one token, the mean of all, or a row for each token."""

import torch
from torch import Tensor

from linprobe.runtime.errors import LinprobeError

Tokens = str | int | None

IGNORED = -100  # label of a token that is no sample; PyTorch's cross-entropy ignores it too
_NAMES = ("last", "first", "mean", "all")


def check_tokens(tokens: Tokens) -> None:
    """Refuse what `pick_tokens` doesn't know.

    Raises:
        LinprobeError: Neither a known name, nor an index, nor None.
    """
    if tokens is None or tokens in _NAMES or (type(tokens) is int):
        return
    known = ", ".join(map(repr, _NAMES))
    raise LinprobeError(
        f"tokens is {tokens!r}; expected {known}, the index of a token, or None (no tokens)"
    )


def pick_tokens(values: Tensor, mask: Tensor | None, tokens: Tokens) -> Tensor:
    """One row a sequence.

    Args:
        values: (n_sequences, n_tokens, n_features).
        mask: (n_sequences, n_tokens), nonzero where a token counts; None: all count.
        tokens: "last", "first", "mean", or an index among those that count; a negative one
            counts from the last.

    Returns:
        (n_sequences, n_features); the mean is float32, or float64 of float64.

    Raises:
        LinprobeError: A sequence has no token there.
    """
    if mask is None:
        mask = torch.ones(values.shape[:2], device=values.device)
    mask = mask.to(values.device) != 0
    counts = mask.sum(1)
    place = tokens if isinstance(tokens, int) else (-1 if tokens == "last" else 0)
    wanted = place + 1 if place >= 0 else -place
    if bool((counts < wanted).any()):
        short = int((counts < wanted).nonzero()[0])
        raise LinprobeError(
            f"a sequence has {int(counts[short])} tokens that the attention mask keeps; "
            f"tokens={tokens!r} needs at least {wanted}"
        )
    if tokens == "mean":
        values = values if values.dtype == torch.float64 else values.float()
        # Filled, not multiplied: what stands behind the mask may be NaN.
        return values.masked_fill(~mask[:, :, None], 0).sum(1) / counts[:, None]
    rank = counts - wanted if place < 0 else torch.full_like(counts, place)
    # The column where the running count first exceeds the rank.
    column = (mask.cumsum(1) > rank[:, None]).int().argmax(1)
    return values[torch.arange(len(values), device=values.device), column]


def kept_tokens(labels: Tensor, mask: Tensor | None) -> Tensor:
    """Tokens that are samples under ``tokens="all"``: labelled, and kept by the mask.

    Args:
        labels: (n_sequences, n_tokens), `IGNORED` where a token is no sample.
        mask: as in `pick_tokens`.

    Returns:
        (n_sequences, n_tokens) bool.

    Raises:
        LinprobeError: Shapes that don't fit.
    """
    if labels.ndim != 2 or (mask is not None and mask.shape != labels.shape):
        masked = "" if mask is None else f" and the attention mask {tuple(mask.shape)}"
        raise LinprobeError(
            f"tokens='all' meets labels of shape {tuple(labels.shape)}{masked}; expected a label "
            f"for each token, (n_sequences, n_tokens), {IGNORED} where there is none"
        )
    kept = labels != IGNORED
    return kept if mask is None else kept & (mask.to(labels.device) != 0)
