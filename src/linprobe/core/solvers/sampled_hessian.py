"""A model of the Hessian from a sample of rows, and conjugate gradients on it.

Few samples carry most of the Hessian: those that the probe is unsure of. Rows are drawn with
probability proportional to their importance and reweighted, so that the model is unbiased.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from linprobe.core.bias_system import LEAST_CURVATURE, MOST_FORMED
from linprobe.core.linalg import backproject, class_logits
from linprobe.core.losses import Loss
from linprobe.core.problem import LinearProblem
from linprobe.core.sums import least

_UNIFORM_SHARE = 0.02
_LEAST_ROWS = 500  # that are gathered, whatever room there is

Preconditioner = Callable[[Tensor], Tensor]
"""Gradient (n_classes, n_features) to something of the same shape that is nearer the solution."""


@dataclass(frozen=True)
class CGOptions:
    """Ends of conjugate gradients: relative accuracy in the preconditioned norm, and steps."""

    tol: float
    max_steps: int


@dataclass(frozen=True)
class RowSample:
    """Drawn rows that are here: `index` (m,) int64 and their `weight` (m,), which includes s_i."""

    index: Tensor
    weight: Tensor


def rows_in_room(problem: LinearProblem, num_rows: float) -> int:
    """Take at most so many rows that two copies of them fit the room that the features give."""
    num_bytes = 2 * problem.num_features * problem.dtype.itemsize
    room = least(problem.sums, problem.features.room)
    return int(min(num_rows, max(_LEAST_ROWS, room / num_bytes)))


def draw_rows(
    problem: LinearProblem, importance: Tensor, num_rows: int, generator: torch.Generator
) -> RowSample:
    """Draw at most `num_rows` distinct rows; all samples if there are no more.

    Systematic sampling (one uniform offset, equal strides through the cumulated importance) has
    less variance than independent draws and repeats a row only if its share exceeds a stride.

    Returns:
        Those of the rows that are here.
    """
    sums, s = problem.sums, problem.sample_weight
    if num_rows >= problem.total_used:
        index = (s > 0).nonzero()[:, 0]
        return RowSample(index, s[index])
    share = importance.double() / sums.total(importance.sum(dtype=torch.float64))
    share = (1 - _UNIFORM_SHARE) * share + _UNIFORM_SHARE * s.double()
    offset = torch.rand((), generator=generator, dtype=torch.float64).item()
    ticks = torch.arange(num_rows, dtype=torch.float64, device=share.device) + offset
    ticks /= num_rows
    starts, ends = sums.spans(share)
    index = torch.searchsorted(ends, ticks)
    if not sums.alone:
        here = index < len(ends)
        index, ticks = index[here], ticks[here]
        index = index[ticks > starts[index]]
    index, count = torch.unique_consecutive(index, return_counts=True)
    return RowSample(index, s[index] * (count / (num_rows * share[index])).to(s.dtype))


def seen_by_all(
    problem: LinearProblem, predictions: Tensor, sample: RowSample
) -> tuple[Tensor, Tensor]:
    """Gather predictions (n_classes, n) and weights of a sample from all processes.

    Returns:
        (n_classes, m) and (m,), of the whole sample.
    """
    gathered = problem.sums.gathered
    return gathered(predictions.index_select(1, sample.index).T).T, gathered(sample.weight)


class SampledHessian:
    """Hessian of P over the weight, with the bias eliminated, from sampled rows.

    Of many classes the bias stays: as one more column of features, which has no penalty.

    Args:
        features: (m, n_features) of the sampled rows, in the dtype to multiply in.
        loss: whose Hessian it is.
        predictions: (n_classes, m) float32 or float64.
        sample_weight: (m,) as `RowSample.weight`.
        penalty: second derivative of the penalty along each feature: (n_features,), or (1,)
            where it is the same for all.
    """

    def __init__(
        self,
        features: Tensor,
        loss: Loss,
        predictions: Tensor,
        sample_weight: Tensor,
        penalty: Tensor,
    ) -> None:
        self.features, self.penalty = features, penalty
        self._loss, self._predictions = loss, predictions
        self._weighted = loss.spread(predictions) * sample_weight
        mass = self._weighted.sum(1, keepdim=True)
        own = self._weighted * (1 - predictions) if loss.couples_in_pairs else self._weighted
        self.curvature = own.sum(1, keepdim=True).clamp_min(LEAST_CURVATURE * mass)
        """(n_classes, 1), each class's own: the diagonal over the bias, as if coupled to none."""
        self.num_products = 0
        """So far: what conjugate gradients cost."""
        self._bias_inverse: Tensor | None = None
        if not loss.couples_in_pairs or loss.num_outputs <= MOST_FORMED:
            hessian = loss.bias_hessian(predictions, self._weighted)
            self._bias_inverse = torch.linalg.pinv(hessian, hermitian=True, rtol=1e-10)

    @property
    def bias_stays(self) -> bool:
        """Tell whether directions have a last column of biases."""
        return self._bias_inverse is None

    def product(self, direction: Tensor) -> Tensor:
        """Hessian times `direction`, float32 or float64.

        Args:
            direction: (n_classes, n_features); one column more where `bias_stays`.
        """
        self.num_products += 1
        dtype, num_features = self._predictions.dtype, self.features.shape[1]
        weight, bias = direction[:, :num_features], direction[:, num_features:]
        logits = class_logits(self.features, weight.to(self.features.dtype)).to(dtype)
        curved = self._curve(logits.add_(bias) if self.bias_stays else logits)
        if self._bias_inverse is not None:
            best = self._bias_inverse @ curved.sum(1, dtype=torch.float64)
            curved -= self._curve(best[:, None].to(dtype))
        back = backproject(curved.to(self.features.dtype), self.features).to(dtype)
        back.add_(weight * self.penalty)
        return torch.cat([back, curved.sum(1, keepdim=True)], 1) if self.bias_stays else back

    def _curve(self, logits: Tensor) -> Tensor:
        """Multiply by the loss's Hessian in logit space, ``s_i (diag(p_i) - p_i p_i^T) z_i``."""
        return self._loss.centred(self._predictions, logits).mul_(self._weighted)


def curvature_root(loss: Loss, predictions: Tensor, sample_weight: Tensor) -> Tensor:
    """Compute the root of each row's weight in the Gram matrix A: (m,).

    A row counts by the mean over classes of its curvature, for softmax of ``p_k (1 - p_k)``, which
    makes ``I_K (x) A`` the Hessian without its coupling between classes.
    """
    return (loss.importance(predictions) / len(predictions) * sample_weight).sqrt()


def conjugate_gradients(
    hessian: SampledHessian,
    gradient: Tensor,
    *,
    precondition: Preconditioner,
    options: CGOptions,
) -> tuple[Tensor, bool]:
    """Solve ``hessian d = -gradient``.

    Returns:
        d (n_classes, n_features), and whether it is as accurate as the options ask for.
    """
    num_features = gradient.shape[1]
    if hessian.bias_stays:
        gradient = torch.cat([gradient, torch.zeros_like(gradient[:, :1])], 1)
        precondition = _with_bias(precondition, hessian.curvature)
    direction = torch.zeros_like(gradient)
    residual = -gradient
    z = precondition(residual)
    search, rho = z, (residual * z).sum()
    goal = options.tol**2 * float(rho)
    for step in range(options.max_steps):
        product = hessian.product(search)
        curvature = (search * product).sum()
        if not float(curvature) > 0:
            return (direction if step else z)[:, :num_features], True
        alpha = rho / curvature
        direction = direction + alpha * search
        residual = residual - alpha * product
        z = precondition(residual)
        last, rho = rho, (residual * z).sum()
        if not float(rho) > goal:
            return direction[:, :num_features], True
        search = z + (rho / last) * search
    return direction[:, :num_features], False


def _with_bias(precondition: Preconditioner, curvature: Tensor) -> Preconditioner:
    """Extend to a last column of biases, each of its own curvature (n_classes, 1)."""

    def apply(gradient: Tensor) -> Tensor:
        inside = precondition(gradient[:, :-1].contiguous())
        return torch.cat([inside, gradient[:, -1:] / curvature], 1)

    return apply
