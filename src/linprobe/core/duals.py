"""Losses as the certificate sees them: the data term and Fenchel's dual, in float64.

Nothing here is shared with the solvers or with `linprobe.core.losses`.
"""

from math import isfinite
from typing import Protocol

import torch
from torch import Tensor

_CLASSES_AT_ONCE = 4  # of a mask (classes, n_samples)
_MAX_BIAS_STEPS = 1000
_NEAR = 1e-2  # largest relative residual of a class from which Newton's method is taken


class Dual(Protocol):
    """A loss, its targets and sample weights s_i (which sum to 1), as the certificate sees them.

    Predictions are the gradients of the loss's convex part over the logits; targets are what they
    would be without error.
    """

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

    def balanced(self, predictions: Tensor) -> Tensor:
        """Move predictions just so far that their residuals sum to zero for each row."""
        ...

    def divergence(self, predictions: Tensor, logits: Tensor) -> float:
        """Sum the weighted Bregman divergences of predictions from those of logits, >= 0."""
        ...


class SoftmaxDual:
    """Cross-entropy of ``softmax(z)``; a `Dual`.

    Args:
        labels: (n,) int64.
        num_classes: K.
        sample_weight: (n,) float64, sums to 1.
    """

    def __init__(self, labels: Tensor, num_classes: int, sample_weight: Tensor) -> None:
        self._labels, self._s = labels, sample_weight
        # A few classes at a time.
        few = torch.arange(num_classes, device=labels.device).split(_CLASSES_AT_ONCE)
        self._mass = torch.cat([(part[:, None] == labels).double() @ self._s for part in few])

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
        best[present] = _newton_bias(
            logits[present], self._s, mass[present], bias[present].nan_to_num(neginf=0.0)
        )
        return best

    def balanced(self, predictions: Tensor) -> Tensor:
        """See `Dual`: each class is predicted as often as it occurs.

        Classes predicted too often are scaled down; what each sample loses goes to the others in
        proportion to what they lack (Altschuler, Weed & Rigollet 2017, Algorithm 2).
        """
        s, mass = self._s, self._mass
        often = predictions @ s
        kept = predictions * torch.where(often > mass, mass / often, 1.0)[:, None]
        lacking = (mass - kept @ s).clamp_min(0)
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
        sample_weight: (n,) float64, sums to 1.
    """

    def __init__(self, targets: Tensor, sample_weight: Tensor) -> None:
        self._targets, self._s = targets, sample_weight

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
        return (self._targets - logits) @ self._s

    def balanced(self, predictions: Tensor) -> Tensor:
        """See `Dual`."""
        return predictions + ((self._targets - predictions) @ self._s)[:, None]

    def divergence(self, predictions: Tensor, logits: Tensor) -> float:
        """See `Dual`: ``sum_i s_i ||q_i - z_i||^2 / 2``."""
        return float(self._s @ (predictions - logits).square().sum(0)) / 2


def _newton_bias(logits: Tensor, s: Tensor, mass: Tensor, bias: Tensor) -> Tensor:
    """Proportional fitting while far away, Newton near the minimum.

    ``b_k += log(mass_k / sum_i s_i p_ik)`` never increases the loss, and in logarithms it leaves
    even a saturated softmax, where Newton's Hessian is zero.
    """
    log_s = s.log()
    last = float("inf")
    for _ in range(_MAX_BIAS_STEPS):
        z = logits + bias[:, None]
        log_p = z - z.logsumexp(0)
        p = log_p.exp()
        gradient = p @ s - mass
        relative = float((gradient / mass).abs().max())
        if not isfinite(relative):
            break
        if relative > _NEAR:
            bias = bias + mass.log() - (log_p + log_s).logsumexp(1)
            continue
        if relative >= last and relative < 1e-10:  # rounding: no longer falling
            break
        last = relative
        ps = p * s
        hessian = torch.diag(ps.sum(1)) - ps @ p.T
        bias = bias - torch.linalg.lstsq(_gauged(hessian), gradient).solution
    return bias


def _gauged(hessian: Tensor) -> Tensor:
    """Make the Hessian regular along equal biases, where it is zero."""
    return hessian + hessian.diagonal().mean() / len(hessian)
