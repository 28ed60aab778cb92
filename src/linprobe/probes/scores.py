"""Losses and errors of logits."""

from math import nan

import torch
from torch import Tensor

from linprobe.core.sums import LocalSums, Sums


def loss_and_error(
    logits: Tensor,
    labels: Tensor,
    sample_weight: Tensor | None = None,
    sums: Sums | None = None,
) -> tuple[float, float]:
    """Compute cross-entropy (nats) and error rate of logits (K, n_samples), float64."""
    sums = sums or LocalSums()
    losses, wrong = sample_losses(logits, labels), sample_errors(logits, labels)
    if sample_weight is None:
        own = [losses.sum(), wrong.sum(), losses.new_tensor(len(losses))]
        loss, error, count = sums.total(torch.stack(own)).tolist()
        return (loss / count, error / count) if count else (nan, nan)
    share = sample_weight / sums.total(sample_weight.sum())
    loss, error = sums.total(torch.stack([share @ losses, share @ wrong])).tolist()
    return loss, error


def sample_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the cross-entropy (nats) of each sample from logits (K, n_samples): (n_samples,)."""
    return logits.logsumexp(0) - logits.gather(0, labels[None])[0]


def sample_errors(logits: Tensor, labels: Tensor) -> Tensor:
    """Tell which samples logits (K, n_samples) predict wrongly: (n_samples,) float64, 0 or 1."""
    return (logits.argmax(0) != labels).double()
