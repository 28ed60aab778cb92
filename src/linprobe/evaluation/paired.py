"""Whether one probe is better than another on the same test samples.

Intervals of two error rates overlap long before their difference is doubtful, because both probes
see the same samples. McNemar's test looks only at the samples that one of them gets right and the
other wrong.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

from torch import Tensor

from linprobe.records.evidence import FALLS, RISES, UNDECIDED, DepthStep
from linprobe.runtime.errors import LinprobeError

SIGNIFICANT = 0.05


def mcnemar_exact(num_fixed: int, num_broken: int) -> float:
    """Two-sided p-value of McNemar's test by the binomial distribution.

    McNemar, Note on the sampling error of the difference between correlated proportions
    (Psychometrika 1947): without a difference each discordant sample falls to either side with
    probability one half, so the smaller count is Binomial(num_fixed + num_broken, 1/2). Summed
    in whole numbers, so that no tail is lost to rounding (and scipy stays a test dependency).

    Args:
        num_fixed: samples that the first classifies wrongly and the second rightly.
        num_broken: the reverse.

    Raises:
        LinprobeError: A negative count.
    """
    if num_fixed < 0 or num_broken < 0:
        raise LinprobeError(
            f"discordant counts are {num_fixed} and {num_broken}; expected numbers from 0 on"
        )
    n = num_fixed + num_broken
    tail = term = 1
    for k in range(min(num_fixed, num_broken)):
        term = term * (n - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << n))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values of a family of tests, so that the family errs at the stated level.

    Holm, A simple sequentially rejective multiple test procedure (Scand. J. Statist. 1979):
    the i-th smallest of m p-values is multiplied by m - i + 1, and none may fall below one
    before it.

    Returns:
        Adjusted p-values in the order given, at most 1.

    Raises:
        LinprobeError: A value that is no probability.
    """
    for p in p_values:
        if not 0 <= p <= 1:
            raise LinprobeError(f"p-value is {p}; expected a number between 0 and 1")
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    scaled = [min(1.0, (len(order) - rank) * p_values[i]) for rank, i in enumerate(order)]
    adjusted = [0.0] * len(order)
    for i, p in zip(order, accumulate(scaled, max), strict=True):
        adjusted[i] = p
    return adjusted


def depth_steps(
    predicted: Mapping[str, Tensor], labels: Tensor, level: float = SIGNIFICANT
) -> tuple[DepthStep, ...]:
    """Say for each probe point and the next whether the test error falls, rises, or can't be told.

    Args:
        predicted: layer to predicted classes (n_test,), in the order of the depth.
        labels: (n_test,).
        level: adjusted p-value up to which a difference is stated. All steps are one family.

    Raises:
        LinprobeError: A layer has another number of predictions than there are labels.
    """
    right = {}
    for layer, classes in predicted.items():
        if classes.shape != labels.shape:
            raise LinprobeError(
                f"layer {layer!r} has predictions of shape {tuple(classes.shape)} for "
                f"{len(labels)} test samples; expected one class number a sample"
            )
        right[layer] = classes.to(labels.device) == labels
    counts = [
        (int((~right[a] & right[b]).sum()), int((right[a] & ~right[b]).sum()))
        for a, b in pairwise(right)
    ]
    p_values = [mcnemar_exact(*pair) for pair in counts]
    steps = zip(pairwise(right), counts, p_values, holm(p_values), strict=True)
    return tuple(
        DepthStep(a, b, *pair, p, adjusted, _verdict(*pair, adjusted <= level))
        for (a, b), pair, p, adjusted in steps
    )


def _verdict(num_fixed: int, num_broken: int, significant: bool) -> str:
    if not significant:
        return UNDECIDED
    return FALLS if num_fixed > num_broken else RISES
