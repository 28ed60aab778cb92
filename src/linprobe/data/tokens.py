"""Tokens of sequences: the option that chooses them, and those that are samples."""

import math

import torch
from torch import Tensor

from linprobe.runtime.errors import LinprobeError

Tokens = str | int | None

IGNORED = -100  # label of a token that is no sample; PyTorch's cross-entropy ignores it too
_NAMES = ("last", "first", "mean", "all")


def check_tokens(tokens: Tokens) -> None:
    """Refuse a choice of tokens that is unknown.

    Raises:
        LinprobeError: Neither a known name, nor an index, nor None.
    """
    if tokens is None or tokens in _NAMES or (type(tokens) is int):
        return
    known = ", ".join(map(repr, _NAMES))
    raise LinprobeError(
        f"tokens is {tokens!r}; expected {known}, the index of a token, or None (no tokens)"
    )


def kept_by(mask: Tensor) -> Tensor:
    """Read an attention mask: True where a token counts.

    Masks of zeros and ones (bool, int or float) keep what isn't zero; those that are added to
    attention scores, 0 and large negative numbers, keep the zeros.

    Raises:
        LinprobeError: NaN, or positive and negative numbers.
    """
    if mask.dtype == torch.bool or not mask.numel():
        return mask.bool()
    low, high = float(mask.min()), float(mask.max())
    if math.isnan(low) or low < 0 < high:
        what = "NaN" if math.isnan(low) else f"{low:g} and {high:g}"
        raise LinprobeError(
            f"the attention mask holds {what}; expected nonzero where a token counts, or 0 there "
            "and negative numbers elsewhere"
        )
    # A mask of floats without a one is added: no sequence is without tokens.
    is_added = low < 0 or (high == 0 and mask.is_floating_point())
    return mask == 0 if is_added else mask != 0


def kept_tokens(labels: Tensor, mask: Tensor | None) -> Tensor:
    """Mark the tokens that are samples under ``tokens="all"``: labelled, and kept by the mask.

    Args:
        labels: (n_sequences, n_tokens), `IGNORED` where a token is no sample.
        mask: (n_sequences, n_tokens), as `kept_by` reads it; None, or longer, as that of samples
            of speech is: the labels alone tell.

    Returns:
        (n_sequences, n_tokens) bool.

    Raises:
        LinprobeError: Shapes that don't fit.
    """
    fits = mask is None or mask.shape[:1] == labels.shape[:1]
    fits = fits and (mask is None or mask.ndim != 2 or mask.shape[1] >= labels.shape[-1])
    if labels.ndim != 2 or not fits:
        masked = "" if mask is None else f" and the attention mask {tuple(mask.shape)}"
        raise LinprobeError(
            f"tokens='all' meets labels of shape {tuple(labels.shape)}{masked}; expected a label "
            f"for each token, (n_sequences, n_tokens), {IGNORED} where there is none"
        )
    kept = labels != IGNORED
    if mask is None or mask.shape != labels.shape:
        return kept
    return kept & kept_by(mask).to(labels.device)
