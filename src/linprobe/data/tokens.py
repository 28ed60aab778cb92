"""Tokens of sequences: the option that chooses them, and those that are samples."""

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


def kept_tokens(labels: Tensor, mask: Tensor | None) -> Tensor:
    """Mark the tokens that are samples under ``tokens="all"``: labelled, and kept by the mask.

    Args:
        labels: (n_sequences, n_tokens), `IGNORED` where a token is no sample.
        mask: (n_sequences, n_tokens), nonzero where a token counts; None: all count.

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
