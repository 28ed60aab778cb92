"""Measure how well scores rank the samples of a class before the others, and how sure that is.

Scores may be ranks, which stay finite where the logits of a class without training samples don't.
scikit-learn and scipy are imported when they are used, so that commands start without them.
"""

import numpy as np
from numpy.typing import NDArray

from linprobe.evaluation.resampling import Array, Resamples

Flags = NDArray[np.bool_]


def auroc_components(scores: Array, positive: Flags) -> Array:
    """Compute what each sample adds to the area under the ROC curve.

    These are the structural components of DeLong, DeLong & Clarke-Pearson (Comparing the areas
    under two or more correlated receiver operating characteristic curves, Biometrics 1988), each
    divided by the number of samples of its class, by the midranks of Sun & Xu (Fast implementation
    of DeLong's algorithm, IEEE Signal Processing Letters 2014) in O(n log n).

    Args:
        scores: (n,).
        positive: (n,), of which some are True and some False.

    Returns:
        (n,): the sum over positive samples is the area, and so is that over negative ones.
    """
    from scipy.stats import rankdata

    own = np.empty(len(scores))
    for part in (positive, ~positive):
        own[part] = rankdata(scores[part])
    beaten = rankdata(scores) - own  # samples of the other class that score lower, ties half
    m, n = int(positive.sum()), int((~positive).sum())
    share: Array = np.where(positive, beaten, m - beaten) / (m * n)
    return share


def area(positive: Flags, scores: Array) -> float:
    """Compute the area under the ROC curve: scikit-learn's, in a tenth of its time."""
    return float(auroc_components(scores, positive)[positive].sum())


def precision(positive: Flags, scores: Array) -> float:
    """Compute the average precision: scikit-learn's, in a tenth of its time."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(scores[order]) != 0, True])  # of ties
    right = positive[order].cumsum()[ends]
    return float((np.diff(right, prepend=0) * right / (ends + 1)).sum() / right[-1])


def resampled_precision(scores: Array, positive: Flags, resamples: Resamples) -> Array:
    """Compute the average precision of each draw of the bootstrap.

    Args:
        scores: (n,).
        positive: (n,), of which some are True.
        resamples: of the n samples.

    Returns:
        (B,).
    """
    # What scores below all positive samples does not count.
    rows = np.flatnonzero(scores >= scores[positive].min())
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    ordered, found = scores[rows], positive[rows]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])  # of ties
    counts = np.add.reduceat(found, starts, dtype=np.int64)
    has = counts > 0
    # A block ends with the ties of one or more positive samples.
    ends, counts = np.r_[starts[1:], len(rows)][has], counts[has]
    every = resamples.sums(rows, np.r_[0, ends[:-1]]).cumsum(0)
    right = resamples.sums(rows[found], counts.cumsum() - counts)
    precision = right.cumsum(0) / np.maximum(every, 1)
    values: Array = (right * precision).sum(0) / len(rows[found])
    return values
