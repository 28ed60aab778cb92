"""Which training rows are held out for choosing the penalty."""

from collections.abc import Sequence

import torch
from torch import Tensor

from linprobe.runtime.errors import LinprobeError


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
    """Count the held-out samples of `num_samples`: rounded, at least 1 and at most all but one."""
    return min(max(1, round(num_samples * fraction)), num_samples - 1)


def holdout_order_of_sets(
    label_sets: Sequence[Tensor], fraction: float, generator: torch.Generator
) -> tuple[Tensor, int]:
    """Random order of samples whose last part is held out for several sets of labels at once.

    Classes of all sets are taken from the rarest on, and of each the nearest whole number is held
    out among its samples that no rarer class has dealt: iterative stratification (Sechidis,
    Tsoumakas & Vlahavas 2011). No class loses its last sample that is not held out.

    Args:
        label_sets: (n_samples,) int64 each, of the same samples.
        fraction: share to hold out.
        generator: source of randomness.

    Returns:
        (n_samples,) int64 permutation, and how many rows at its end are the held-out ones.

    Raises:
        LinprobeError: Every sample is the last of a class in some set.
    """
    order = torch.randperm(len(label_sets[0]), generator=generator)
    members = [
        (labels[order] == number).nonzero()[:, 0]
        for labels in label_sets
        for number in labels.unique()
    ]
    dealt, held = torch.zeros(2, len(order), dtype=torch.bool)
    for rows in sorted(members, key=len):
        open_rows = rows[~dealt[rows]]
        wanted = round(fraction * len(rows)) - int(held[rows].sum())
        held[open_rows[: max(0, min(wanted, len(rows) - 1))]] = True
        dealt[open_rows] = True
    spare = torch.ones_like(held)  # by which no class loses its last sample
    for rows in members:
        if bool(held[rows].all()):
            held[rows[0]] = False
        if len(rows) == 1:
            spare[rows] = False
    if not bool(held.any()):
        if not bool(spare.any()):
            raise LinprobeError(
                "every sample is the only one of a class in some label set, so none can be held "
                "out for choosing l2; expected several samples for each class"
            )
        held[spare.nonzero()[0]] = True
    return torch.cat([order[~held], order[held]]), int(held.sum())


def holdout_order_by_group(
    labels: Tensor | Sequence[Tensor],
    groups: Tensor,
    fraction: float,
    generator: torch.Generator,
) -> tuple[Tensor, int]:
    """Random order of samples whose last part is held out, no group standing on both sides.

    Groups are taken in random order; each is held out if it brings the number of held-out
    samples closer to the goal and leaves every class a sample that is not held out.

    Args:
        labels: (n_samples,) int64, or several sets of them.
        groups: (n_samples,) int64, the group of each sample.
        fraction: share to hold out.
        generator: source of randomness.

    Returns:
        (n_samples,) int64 permutation, and how many rows at its end are the held-out ones.

    Raises:
        LinprobeError: No group can be held out.
    """
    _, group = torch.unique(groups, return_inverse=True)
    num_groups = int(group.max()) + 1
    sets = [labels] if isinstance(labels, Tensor) else labels
    table = torch.cat([_table(group, num_groups, labels) for labels in sets], dim=1)
    goal, held, left = num_held_out(len(group), fraction), 0, table.sum(0)
    chosen = torch.zeros(num_groups, dtype=torch.bool)
    shuffled = torch.randperm(num_groups, generator=generator)
    sizes = torch.bincount(group)
    # The smallest group stands last: it is taken where all others are too large.
    smallest = int(shuffled[sizes[shuffled].argmin()])
    for i in [*(g for g in shuffled.tolist() if g != smallest), smallest]:
        size = int(sizes[i])
        closer = abs(held + size - goal) < abs(held - goal) or (i == smallest and not held)
        if closer and bool((left > table[i]).all()):
            chosen[i], held, left = True, held + size, left - table[i]
    if not held:
        raise LinprobeError(
            f"none of the {num_groups} groups of training samples can be held out for choosing "
            "l2 without taking a class's last sample; expected at least two groups a class: "
            "give more groups, or a single l2 and no groups"
        )
    order = torch.randperm(len(group), generator=generator)
    held_out = chosen[group[order]]
    return torch.cat([order[~held_out], order[held_out]]), held


def _table(group: Tensor, num_groups: int, labels: Tensor) -> Tensor:
    """Count the samples of each group and class, (n_groups, n_classes)."""
    classes, label = torch.unique(labels, return_inverse=True)
    counts = torch.bincount(group * len(classes) + label, minlength=num_groups * len(classes))
    return counts.view(num_groups, len(classes))
