"""From sequences to rows: one token, the mean of all, or a row for each token."""

import torch
from torch import Tensor

from linprobe.data.tokens import IGNORED, Tokens, check_tokens, kept_by, kept_tokens
from linprobe.runtime.errors import LinprobeError

__all__ = ["IGNORED", "Tokens", "check_tokens", "kept_by", "kept_tokens", "pick_tokens"]


def pick_tokens(values: Tensor, mask: Tensor | None, tokens: Tokens) -> Tensor:
    """Take one row from each sequence.

    Args:
        values: (n_sequences, n_tokens, n_features).
        mask: (n_sequences, n_tokens), as `kept_by` reads it; None: all count.
        tokens: "last", "first", "mean", or an index among those that count; a negative one
            counts from the last.

    Returns:
        (n_sequences, n_features); the mean is float32, or float64 of float64.

    Raises:
        LinprobeError: A sequence has no token there.
    """
    if mask is None:
        mask = torch.ones(values.shape[:2], device=values.device)
    mask = kept_by(mask).to(values.device)
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
