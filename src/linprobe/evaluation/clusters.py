"""k-means, for the types of a control task."""

import torch
from torch import Tensor

from linprobe.runtime.errors import LinprobeError

_FIT_ROWS = 10_000
_MAX_ROUNDS = 50


def cluster(
    train: Tensor, test: Tensor, num_clusters: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Group the rows of both splits around centres of the first.

    Lloyd's algorithm from the seeding of k-means++ (Arthur & Vassilvitskii 2007), on at most
    10,000 rows of `train`, which place the centres well enough for a control.

    Args:
        train: (n_train, n_features) floating point.
        test: (n_test, n_features).
        num_clusters: at most as many as rows.
        generator: source of randomness, on the CPU.

    Returns:
        The cluster of each row, (n_train,) and (n_test,) int64, in 0..num_clusters-1.

    Raises:
        LinprobeError: Fewer rows than clusters.
    """
    if not 1 <= num_clusters <= len(train):
        raise LinprobeError(
            f"{num_clusters} clusters of {len(train)} samples; expected between 1 and as many as "
            "there are samples"
        )
    chosen = torch.randperm(len(train), generator=generator)[: max(_FIT_ROWS, num_clusters)]
    rows = train[chosen.to(train.device)]
    centres = _seeded(rows, num_clusters, generator)
    last = None
    for _ in range(_MAX_ROUNDS):
        nearest = _nearest(rows, centres)
        if last is not None and torch.equal(nearest, last):
            break
        last = nearest
        counts = torch.bincount(nearest, minlength=num_clusters)
        sums = torch.zeros_like(centres).index_add_(0, nearest, rows)
        # A centre without rows, of duplicated points, stays where it is.
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], centres)
    return _nearest(train, centres), _nearest(test, centres)


def _seeded(rows: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """Rows drawn one by one, with probability as their squared distance to those before."""
    picks = [int(torch.randint(len(rows), (1,), generator=generator))]
    distance = _square_distances(rows, rows[picks])[:, 0]
    while len(picks) < num_clusters:
        weight = distance.cpu().double().cumsum(0)
        if float(weight[-1]) <= 0:  # fewer different rows than clusters: any of them
            picks.append(picks[-1])
            continue
        at = torch.rand(1, generator=generator, dtype=torch.float64) * weight[-1]
        picks.append(int(torch.searchsorted(weight, at).clamp_max(len(rows) - 1)))
        distance = distance.minimum(_square_distances(rows, rows[picks[-1:]])[:, 0])
    return rows[picks].clone()


def _nearest(rows: Tensor, centres: Tensor) -> Tensor:
    blocks = rows.split(_FIT_ROWS)
    return torch.cat([_square_distances(block, centres).argmin(1) for block in blocks])


def _square_distances(rows: Tensor, centres: Tensor) -> Tensor:
    """(n, n_clusters)."""
    squares = rows.square().sum(1)[:, None] + centres.square().sum(1)
    return torch.addmm(squares, rows, centres.T, alpha=-2.0).clamp_min_(0.0)
