"""Which training rows are held out for choosing the penalty."""

import torch
from torch import Tensor


def holdout_order(labels: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Random order of samples whose last part is a stratified held-out set.

    Args:
        labels: (n_samples,) int64.
        fraction: share to hold out; of each class the nearest whole number, never its last
            sample.
        generator: source of randomness.

    Returns:
        (n_samples,) int64 permutation; `num_held_out` rows at its end are the held-out ones.
    """
    order = torch.randperm(len(labels), generator=generator)
    goal = num_held_out(len(labels), fraction)
    # Rank each sample within its class, as a share of the class: a class gives up its samples
    # evenly, and its first sample (share 0) only after every other sample there is.
    shuffled = labels[order]
    by_class = torch.argsort(shuffled, stable=True)
    counts = torch.bincount(shuffled)
    starts = counts.cumsum(0) - counts
    rank = torch.empty_like(by_class)
    rank[by_class] = torch.arange(len(labels)) - starts[shuffled[by_class]]
    share = (rank + 0.5) / counts[shuffled]
    share[rank == 0] = -1.0
    chosen = torch.argsort(share, stable=True)
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    held_out[chosen[len(labels) - goal :]] = True
    return torch.cat([order[~held_out], order[held_out]])


def num_held_out(num_samples: int, fraction: float) -> int:
    """How many of `num_samples` are held out: rounded, at least 1 and at most all but one."""
    return min(max(1, round(num_samples * fraction)), num_samples - 1)
