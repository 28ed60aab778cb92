"""Losses as the certificate sees them: the data term and Fenchel's dual, in float64.

Nothing here is shared with the solvers or with `linprobe.core.losses`. Values that are returned are
those of the samples that are here; the best bias is that of all processes' samples.
"""

from collections.abc import Iterator
from copy import copy
from typing import Protocol

import torch
from torch import Tensor

from linprobe.core.sums import Sums

_CLASSES_AT_ONCE = 4  # of a mask (classes, n_samples)
_BLOCK_NUMBERS = 2**18  # of logits that are worked on at a time
_MAX_BIAS_STEPS = 1000
_MANY_CLASSES = 64
_WEAK_PROGRESS = 0.1  # ratio of successive residuals above which a Hessian is made anew
# Largest relative residual of a class from which Newton's method is tried, and is taken for sure.
_FAR, _NEAR = 0.5, 1e-2
_SLOW = 0.5  # ratio of successive residuals above which Newton's step from far off does not help
_ROUNDING = 1e-10  # relative residual below which it may end
_SATURATED = 1e-200  # predictions below have lost digits


class Dual(Protocol):
    """A loss, its targets and sample weights s_i (which sum to 1), as the certificate sees them.

    Predictions are the gradients of the loss's convex part over the logits; targets are what they
    would be without error.
    """

    def part(self, rows: slice | Tensor) -> "Dual":
        """View some of the samples, with the weights that they have among all."""
        ...

    def value(self, logits: Tensor) -> float:
        """Sum the weighted losses of logits (K, n)."""
        ...

    def error_rate(self, logits: Tensor) -> float:
        """Compute the weighted share of wrong predictions; NaN where none can be wrong or right."""
        ...

    def predictions(self, logits: Tensor) -> Tensor:
        """Compute predictions (K, n) of logits, a new tensor."""
        ...

    def residuals(self, predictions: Tensor) -> Tensor:
        """Compute ``s_i (q_i - t_i)``, overwriting the predictions (K, n)."""
        ...

    def best_bias(self, logits: Tensor, bias: Tensor) -> Tensor:
        """Minimise the data term over the bias, from a given one."""
        ...

    def mean(self, predictions: Tensor) -> Tensor:
        """Sum weighted predictions (K, n) over the samples: (K,)."""
        ...

    def balanced(self, predictions: Tensor, mean: Tensor) -> Tensor:
        """Move predictions just so far that the residuals of all samples sum to zero.

        Args:
            predictions: (K, n), of some samples.
            mean: (K,), of the predictions of all samples.
        """
        ...

    def divergence(self, predictions: Tensor, logits: Tensor) -> float:
        """Sum the weighted Bregman divergences of predictions from those of logits, >= 0."""
        ...


class SoftmaxDual:
    """Cross-entropy of ``softmax(z)``; a `Dual`.

    Args:
        labels: (n,) int64.
        num_classes: K.
        sample_weight: (n,) float64, sums to 1 over all samples.
        sums: completes sums over samples.
    """

    def __init__(self, labels: Tensor, num_classes: int, sample_weight: Tensor, sums: Sums) -> None:
        self._labels, self._s, self._sums = labels, sample_weight, sums
        # A few classes at a time.
        few = torch.arange(num_classes, device=labels.device).split(_CLASSES_AT_ONCE)
        mass = torch.cat([(part[:, None] == labels).double() @ self._s for part in few])
        self._mass = sums.total(mass)

    def part(self, rows: slice | Tensor) -> "SoftmaxDual":
        """See `Dual`."""
        view = copy(self)
        view._labels, view._s = self._labels[rows], self._s[rows]
        return view

    def value(self, logits: Tensor) -> float:
        """See `Dual`."""
        return float(self._s @ (logits.logsumexp(0) - logits.gather(0, self._labels[None])[0]))

    def error_rate(self, logits: Tensor) -> float:
        """See `Dual`."""
        return float(self._s @ (logits.argmax(0) != self._labels).double())

    def predictions(self, logits: Tensor) -> Tensor:
        """See `Dual`."""
        return logits.softmax(0)

    def residuals(self, predictions: Tensor) -> Tensor:
        """See `Dual`."""
        samples = torch.arange(len(self._labels), device=self._labels.device)
        predictions[self._labels, samples] -= 1.0
        return predictions.mul_(self._s)

    def best_bias(self, logits: Tensor, bias: Tensor) -> Tensor:
        """See `Dual`; minus infinity for classes without samples."""
        mass = self._mass
        present = mass > 0
        best = torch.full_like(bias, float("-inf"))
        known = present if not bool(present.all()) else slice(None)
        start = bias[present].nan_to_num(neginf=0.0)
        best[present] = _newton_bias(logits[known], self._s, mass[present], start, self._sums)
        return best

    def mean(self, predictions: Tensor) -> Tensor:
        """See `Dual`."""
        return predictions @ self._s

    def balanced(self, predictions: Tensor, mean: Tensor) -> Tensor:
        """See `Dual`: each class is predicted as often as it occurs.

        Classes predicted too often are scaled down; what each sample loses goes to the others in
        proportion to what they lack (Altschuler, Weed & Rigollet 2017, Algorithm 2).
        """
        factor = torch.where(mean > self._mass, self._mass / mean, 1.0)
        kept = predictions * factor[:, None]
        lacking = (self._mass - factor * mean).clamp_min(0)
        total = lacking.sum()
        if not total > 0:
            return kept
        lost = (1 - kept.sum(0)).clamp_min(0)
        return kept + lost * (lacking / total)[:, None]

    def divergence(self, predictions: Tensor, logits: Tensor) -> float:
        """See `Dual`: ``sum_i s_i KL(q_i || p_i)``; NaN stays NaN."""
        q, log_p = predictions, logits.log_softmax(0)
        terms = torch.where(q > 0, q * (q.log() - log_p), 0.0)
        terms = terms.where(~q.isnan(), q)
        return float((self._s @ terms.sum(0)).clamp_min(0))


class SquaredDual:
    """Half the squared distance ``||z - t||^2 / 2`` of logits from real targets; a `Dual`.

    Args:
        targets: (K, n) float64.
        sample_weight: (n,) float64, sums to 1 over all samples.
        sums: completes sums over samples.
    """

    def __init__(self, targets: Tensor, sample_weight: Tensor, sums: Sums) -> None:
        self._targets, self._s, self._sums = targets, sample_weight, sums
        self._mass = sums.total(targets @ sample_weight)

    def part(self, rows: slice | Tensor) -> "SquaredDual":
        """See `Dual`."""
        view = copy(self)
        view._targets, view._s = self._targets[:, rows], self._s[rows]
        return view

    def value(self, logits: Tensor) -> float:
        """See `Dual`."""
        return self.divergence(self._targets, logits)

    def error_rate(self, logits: Tensor) -> float:
        """See `Dual`."""
        return float("nan")

    def predictions(self, logits: Tensor) -> Tensor:
        """See `Dual`."""
        return logits.clone()

    def residuals(self, predictions: Tensor) -> Tensor:
        """See `Dual`."""
        return predictions.sub_(self._targets).mul_(self._s)

    def best_bias(self, logits: Tensor, bias: Tensor) -> Tensor:
        """See `Dual`: the mean of what logits lack."""
        return self._sums.total((self._targets - logits) @ self._s)

    def mean(self, predictions: Tensor) -> Tensor:
        """See `Dual`."""
        return predictions @ self._s

    def balanced(self, predictions: Tensor, mean: Tensor) -> Tensor:
        """See `Dual`."""
        return predictions + (self._mass - mean)[:, None]

    def divergence(self, predictions: Tensor, logits: Tensor) -> float:
        """See `Dual`: ``sum_i s_i ||q_i - z_i||^2 / 2``."""
        return float(self._s @ (predictions - logits).square().sum(0)) / 2


def _newton_bias(logits: Tensor, s: Tensor, mass: Tensor, bias: Tensor, sums: Sums) -> Tensor:
    """Proportional fitting while far away, Newton near the minimum.

    ``b_k += log(mass_k / sum_i s_i p_ik)`` never increases the loss, and in logarithms it leaves
    even a saturated softmax, where Newton's Hessian is zero. A step of Newton's method from far off
    that does not help is taken back, and the next waits until it is near. Of many classes a Hessian
    costs far more than a gradient: one in float32 serves for several steps.
    """
    last, near, many = float("inf"), _FAR, len(bias) > _MANY_CLASSES
    best, least, before = bias, float("inf"), (bias, mass)
    hessian: Tensor | None = None
    for _ in range(_MAX_BIAS_STEPS):
        cross: Tensor | None = None
        if many:
            own = _predicted(logits, s, bias)
        else:
            own, cross = _predicted_in_pairs(logits, s, bias, torch.float64)
        predicted = sums.agreed(sums.total(own))
        gradient = predicted - mass
        relative = float((gradient / mass).abs().max())
        if relative < least:
            best, least = bias, relative
        if not 0 < relative < float("inf") or last <= relative < _ROUNDING:  # no longer falling
            break
        if last > _NEAR and relative > _SLOW * last:  # it was too far for Newton's step
            near, relative, last, (bias, predicted) = _NEAR, last, float("inf"), before
        if relative > near:
            saturated = float(predicted.min()) < _SATURATED
            log = _log_predicted(logits, s, bias, sums) if saturated else predicted.log()
            bias, hessian = bias + mass.log() - log, None
            continue
        if hessian is None or not many or relative > _WEAK_PROGRESS * last:
            if cross is None:
                _, cross = _predicted_in_pairs(logits, s, bias, torch.float32)
            hessian = _bias_hessian(sums.total(cross))
        last, before = relative, (bias, predicted)
        bias = bias - sums.agreed(_solved(hessian, gradient))
    return best


def _predicted(logits: Tensor, s: Tensor, bias: Tensor) -> Tensor:
    """Sum ``s_i p_i``."""
    total = torch.zeros_like(bias)
    for z, w in _blocks(logits, s, bias):
        total += z.softmax(0) @ w
    return total


def _predicted_in_pairs(
    logits: Tensor, s: Tensor, bias: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Sum ``s_i p_i``, and ``s_i p_i p_i^T`` by products in a dtype."""
    total = torch.zeros_like(bias)
    cross = torch.zeros(2 * bias.shape).to(bias)
    for z, w in _blocks(logits, s, bias):
        p = z.softmax(0)
        total += p @ w
        p = p.to(dtype)
        cross += (p * w.to(dtype)) @ p.T
    return total, cross


def _log_predicted(logits: Tensor, s: Tensor, bias: Tensor, sums: Sums) -> Tensor:
    """Compute the logarithm of ``sum_i s_i p_i``, however small it is."""
    parts = [(z.log_softmax(0) + w.log()).logsumexp(1) for z, w in _blocks(logits, s, bias)]
    every = sums.gathered(torch.stack(parts) if parts else bias.new_empty(0, len(bias)))
    return every.logsumexp(0)


def _bias_hessian(cross: Tensor) -> Tensor:
    """Make ``sum_i s_i (diag(p_i) - p_i p_i^T)`` of the products; regular along equal biases."""
    hessian = torch.diag(cross.sum(1)) - cross
    return hessian + hessian.diagonal().mean() / len(hessian)


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed):
        least: Tensor = torch.linalg.lstsq(matrix, right).solution
        return least
    solution: Tensor = torch.cholesky_solve(right[:, None], factor)[:, 0]
    return solution


def row_blocks(num_rows: int, num_classes: int) -> Iterator[slice]:
    """Split samples so that the logits of a part are few."""
    step = max(1, _BLOCK_NUMBERS // max(1, num_classes))
    return (slice(start, start + step) for start in range(0, num_rows, step))


def _blocks(logits: Tensor, s: Tensor, bias: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield logits with a bias, and weights, of a part of the samples after the other."""
    for rows in row_blocks(len(s), len(bias)):
        yield logits[:, rows] + bias[:, None], s[rows]
