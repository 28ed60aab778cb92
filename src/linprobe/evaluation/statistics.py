"""Error rates, their intervals, and tests of their differences.

Intervals of two error rates overlap long before their difference is doubtful, because both probes
see the same samples. McNemar's test looks only at the samples that one of them gets right and the
other wrong.

scipy is imported when it is used, so that commands start without it.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import numpy as np
from torch import Tensor

from linprobe.evaluation.resampling import Array, standard_error
from linprobe.records.evidence import FALLS, RISES, UNDECIDED, DepthStep, MetricStep
from linprobe.runtime.errors import LinprobeError

SIGNIFICANT = 0.05
_NOTHING = 1e-9  # a standard error that is rounding


def error_rate(predicted: Tensor, labels: Tensor) -> float:
    """Return the fraction of samples whose predicted class is not their label.

    Args:
        predicted: (n_samples,) integer class numbers.
        labels: (n_samples,) integer class numbers.

    Raises:
        LinprobeError: Shapes differ, or there is no sample.
    """
    if predicted.shape != labels.shape or labels.ndim != 1 or not len(labels):
        raise LinprobeError(
            f"predictions have shape {tuple(predicted.shape)}, labels {tuple(labels.shape)}; "
            "expected one class number per sample, and at least one sample"
        )
    return float((predicted.to(labels.device) != labels).double().mean())


def wilson_interval(num_errors: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Compute the score interval of a binomial proportion.

    Wilson, Probable inference, the law of succession, and statistical inference (JASA 1927):
    the p for which ``|p_hat - p| <= z sqrt(p (1 - p) / n)``. Unlike ``p_hat +- z s`` it stays
    within [0, 1] and has nearly the stated coverage for small error rates.

    Args:
        num_errors: wrong predictions, 0..n.
        n: predictions, at least 1.
        level: coverage, strictly between 0 and 1.

    Returns:
        Lower and upper end, as fractions.

    Raises:
        LinprobeError: An argument is outside its range.
    """
    from scipy.stats import binomtest

    if n < 1 or not 0 <= num_errors <= n:
        raise LinprobeError(
            f"{num_errors} errors of {n} samples; expected at least one sample and between 0 "
            "and n errors (counts, not rates)"
        )
    if not 0 < level < 1:
        raise LinprobeError(f"level is {level}; expected a coverage between 0 and 1, such as 0.95")
    interval = binomtest(num_errors, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def rate_interval(rate: float, n: int) -> tuple[float, float]:
    """Compute the Wilson interval of an error rate on n samples; unknown where the rate is NaN."""
    return wilson_interval(round(rate * n), n) if rate == rate else (rate, rate)


def metric_interval(
    value: float, deviations: Array, least: float = 0.0, level: float = 0.95
) -> tuple[float, float] | None:
    """Compute an interval of a metric between `least` and 1 from its standard error.

    It is symmetric in the logit of the metric's place between its two ends, so that it stays
    between them (as Qin & Hotilovac, Comparison of non-parametric confidence intervals for the
    area under the ROC curve, Statistical Methods in Medical Research 2008, advise for AUROC).

    Returns:
        Lower and upper end; None where samples don't vary, so that nothing is known.
    """
    from scipy.special import expit, logit
    from scipy.stats import norm

    place, error = (value - least) / (1 - least), standard_error(deviations) / (1 - least)
    if not (0 < place < 1 and error > _NOTHING):
        return None
    half = norm.isf((1 - level) / 2) * error / (place * (1 - place))
    low, high = least + (1 - least) * expit(logit(place) + np.array([-half, half]))
    return float(low), float(high)


def mcnemar_exact(num_fixed: int, num_broken: int) -> float:
    """Compute the two-sided p-value of McNemar's test by the binomial distribution.

    McNemar, Note on the sampling error of the difference between correlated proportions
    (Psychometrika 1947): without a difference each discordant sample falls to either side with
    probability one half, so the smaller count is Binomial(num_fixed + num_broken, 1/2).

    Args:
        num_fixed: samples that the first classifies wrongly and the second correctly.
        num_broken: the reverse.

    Raises:
        LinprobeError: A negative count.
    """
    from scipy.stats import binomtest

    if num_fixed < 0 or num_broken < 0:
        raise LinprobeError(
            f"discordant counts are {num_fixed} and {num_broken}; expected numbers from 0 on"
        )
    smaller, n = min(num_fixed, num_broken), num_fixed + num_broken
    return float(binomtest(smaller, n).pvalue) if n else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values of a family of tests, so that the family errs at the stated level.

    Holm, A simple sequentially rejective multiple test procedure (Scand. J. Statist. 1979):
    the i-th smallest of m p-values is multiplied by m - i + 1, and none may fall below one
    before it.

    Returns:
        Adjusted p-values in the order given, at most 1.

    Raises:
        LinprobeError: A value is not a probability.
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
    """Say for each layer and the next whether the test error falls, rises, or can't be told.

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
                f"{len(labels)} test samples; expected one class number per sample"
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


def metric_steps(
    metric: str,
    values: Mapping[str, float],
    deviations: Mapping[str, Array],
    smallest: int,
    level: float = SIGNIFICANT,
) -> tuple[MetricStep, ...]:
    """Say for each layer and the next whether a metric falls, rises, or can't be told.

    The difference is divided by its own standard error, which both layers' deviations give because
    they are of the same samples: DeLong's test for the area under the ROC curve, else a paired
    bootstrap; the p-value is the normal distribution's. Where two layers differ but neither
    varies, as a constant probe and a perfect one, p is that of a sign test on the smallest class.

    Args:
        metric: its name.
        values: layer to the metric, in the order of the depth.
        deviations: layer to deviations, of the same layers.
        smallest: test samples of the rarest class that occurs.
        level: adjusted p-value up to which a difference is stated. All steps are one family.
    """
    pairs = list(pairwise(values))
    changes = [values[b] - values[a] for a, b in pairs]
    p_values = [
        _two_sided(change, standard_error(deviations[b] - deviations[a]), smallest)
        for change, (a, b) in zip(changes, pairs, strict=True)
    ]
    return tuple(
        MetricStep(metric, a, b, change, p, adjusted, _direction(change, adjusted <= level))
        for (a, b), change, p, adjusted in zip(
            pairs, changes, p_values, holm(p_values), strict=True
        )
    )


def _two_sided(change: float, error: float, smallest: int) -> float:
    from scipy.stats import norm

    if abs(change) <= _NOTHING:
        return 1.0
    if error <= _NOTHING:
        return min(1.0, 2.0 ** (1 - smallest))
    return float(2 * norm.sf(abs(change) / error))


def _direction(change: float, significant: bool) -> str:
    if not significant:
        return UNDECIDED
    return FALLS if change < 0 else RISES
