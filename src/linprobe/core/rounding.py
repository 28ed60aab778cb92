r"""What the rounding of its features costs a probe, at the weight that its penalty left it.

Rounding is small beside all that varies and yet may be all that varies in some direction. Whether
that counts depends on the probe: one of a large penalty hardly uses directions of tiny variance,
one of a small penalty does. Take rounding for noise that is independent of column to column, of
variance ``e_j^2`` in the coordinates of the problem (`StandardisedFeatures.rounding_deviation`).
Of softmax logits ``z_i = W x_i + b`` with probabilities p_i it changes the expected cross-entropy,
to second order, by

    cost(W) = 1/2 sum_j e_j^2 w_j^T H w_j,    H = sum_i s_i (diag(p_i) - p_i p_i^T),

w_j being the j-th column of W. So rounding acts as a second penalty beside ``l2/2 ||W||_F^2``
(Bishop, Training with noise is equivalent to Tikhonov regularization, 1995).

**What the number says.** A probe that was fitted to rounded features has adapted: where rounding
drowns a direction its weight is small, and so is the cost, though what the direction told is lost.
But at the optimum W* of ``P + cost`` nothing is gained by moving W, so that the minimum changes
with the size of rounding by the explicit change alone:

    d min(P + cost) / d log(e^2) = cost(W*).

One decimal digit more in the activations divides e^2 by 100 and lowers the minimum by about
``log(100) cost = 4.6 cost``, each further one by what the cost is then. Rounding counts where the
cost exceeds `LIMIT`, so that a digit is worth a thousandth of a nat (measured: docs/precision.md).

**Which penalties are safe.** As P(W*) is at most P(0), ``l2/2 ||W||_F^2 <= log K``, and H is at
most 1/2, so ``cost <= max_j e_j^2 log(K) / (2 l2)``: rounding counts for no ``l2`` above
``max_j e_j^2 log(K) / (2 LIMIT)``. In float32 a column whose mean is no larger than what varies has
``e_j^2`` below 1e-14, and an l2 above 1e-9 is safe for up to a million classes.

The estimate of e_j is that of one rounding, in the layer itself. Rounding in earlier layers has
gone through the same weights as what varies has, and is small in the same directions.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from linprobe.core.duals import row_blocks
from linprobe.core.features import StandardisedFeatures
from linprobe.core.solvers.base import Point
from linprobe.core.sums import LocalSums, Sums

LIMIT, LIMIT_SHORT = 2e-4, 5e-2
"""Nats of `rounding_cost` above which rounding counts; in 16 bits, where all layers have some."""


def is_rounded(
    features: StandardisedFeatures,
    point: Point,
    sample_weight: Tensor | None = None,
    sums: Sums | None = None,
) -> bool:
    """Tell whether rounding counts: of all that varies, or of what the probe uses.

    Args:
        features: (n_samples, n_features), that the probe was fitted to.
        point: the probe; logits (n_classes, n_samples).
        sample_weight: (n_samples,) of the problem; default: equal.
        sums: completes sums over samples; default: all are here.
    """
    limit = LIMIT_SHORT if features.raw_dtype.itemsize < 4 else LIMIT
    return features.rounded or rounding_cost(features, point, sample_weight, limit, sums) > limit


def rounding_cost(
    features: StandardisedFeatures,
    point: Point,
    sample_weight: Tensor | None = None,
    enough: float = 0.0,
    sums: Sums | None = None,
) -> float:
    """Estimate the cross-entropy (nats) that rounding of the features costs; see the module.

    Args:
        features: as `is_rounded` takes them.
        point: as `is_rounded` takes it.
        sample_weight: as `is_rounded` takes it.
        enough: an upper bound is returned instead where that is no larger.
        sums: as `is_rounded` takes them.
    """
    sums = sums or LocalSums()
    moved = point.weight * features.rounding_deviation  # of logits, a column each
    mean = torch.zeros_like(point.bias)
    for p, s in _predictions(point, sample_weight, sums):
        mean += p @ s
    mean = sums.agreed(sums.total(mean))
    # The sum over i of s_i p_i p_i^T is at least that of its mean.
    bound = float(mean @ (moved - mean @ moved).square().sum(1)) / 2
    if bound <= enough:
        return bound
    inner = moved @ moved.T
    common = torch.zeros((), dtype=torch.float64)
    for p, s in _predictions(point, sample_weight, sums):
        common += float((inner @ p).mul_(p).sum(0) @ s)
    return (float(mean @ inner.diagonal()) - float(sums.total(common))) / 2


def _predictions(
    point: Point, sample_weight: Tensor | None, sums: Sums
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield probabilities (n_classes, m) and weights (m,) of a part of the samples at a time."""
    n, k = point.logits.shape[1], len(point.bias)
    weight = point.bias.new_ones(n) if sample_weight is None else sample_weight.double()
    weight = weight / sums.total(weight.sum())
    for rows in row_blocks(n, k):
        yield (point.logits[:, rows].double() + point.bias[:, None]).softmax(0), weight[rows]
