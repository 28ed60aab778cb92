"""Numbers that say how good predictions are, and how sure one can be of them."""

import math
from statistics import NormalDist

from torch import Tensor

from linprobe.runtime.errors import LinprobeError


def error_rate(predicted: Tensor, labels: Tensor) -> float:
    """Fraction of samples whose predicted class is not their label.

    Args:
        predicted: (n_samples,) integer class numbers.
        labels: (n_samples,) integer class numbers.

    Raises:
        LinprobeError: Shapes differ, or there is no sample.
    """
    if predicted.shape != labels.shape or labels.ndim != 1 or not len(labels):
        raise LinprobeError(
            f"predictions have shape {tuple(predicted.shape)}, labels {tuple(labels.shape)}; "
            "expected one class number a sample, and at least one sample"
        )
    return float((predicted.to(labels.device) != labels).double().mean())


def wilson_interval(num_errors: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a binomial proportion.

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
        LinprobeError: An argument outside its range.
    """
    if n < 1 or not 0 <= num_errors <= n:
        raise LinprobeError(
            f"{num_errors} errors of {n} samples; expected at least one sample and between 0 "
            "and n errors (counts, not rates)"
        )
    if not 0 < level < 1:
        raise LinprobeError(f"level is {level}; expected a coverage between 0 and 1, such as 0.95")
    z2 = NormalDist().inv_cdf(0.5 + level / 2) ** 2
    rate = num_errors / n
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (rate * (1 - rate) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # Exact at both ends, where rounding would leave 1e-19 or 1 - 1e-16.
    low = 0.0 if num_errors == 0 else centre - half
    high = 1.0 if num_errors == n else centre + half
    return low, high
