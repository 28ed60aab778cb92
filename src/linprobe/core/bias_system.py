"""Linear equations of the bias, which is free: every direction and every search along it has some.

P's Hessian over the bias is ``H_b = sum_i s_i (diag(p_i) - p_i p_i^T)`` for softmax. Of few classes
it is formed and factorised. Of many, forming it would cost as much as a pass over the features:
conjugate gradients then multiply by it, two products of a vector with the predictions at a time.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from linprobe.core.linalg import LinAlgError
from linprobe.core.losses import Loss
from linprobe.core.parts import Part
from linprobe.core.sums import Sums

MOST_FORMED = 64
"""Classes up to which a matrix over biases is formed."""

LEAST_CURVATURE = 1e-6
"""Share of a class's mass that its own curvature is taken for: a difference of float32 sums."""

_CLASSES_AT_ONCE = 16  # of a copy of predictions
_TOL, _MAX_STEPS = 1e-4, 50  # of the residual, preconditioned


class BiasSystem(Protocol):
    """H_b at some predictions."""

    def solve(self, right: Tensor) -> Tensor:
        """Solve for each row of (r, n_classes) float64; least squares, for H_b is singular."""
        ...


class FormedBiasSystem:
    """H_b as a matrix; a `BiasSystem`.

    Args:
        hessian: (n_classes, n_classes) float64.
    """

    def __init__(self, hessian: Tensor) -> None:
        self.hessian = hessian

    def solve(self, right: Tensor) -> Tensor:
        """See `BiasSystem`."""
        return solve_psd(self.hessian, right.T).T


class MultipliedBiasSystem:
    """H_b of softmax as products; a `BiasSystem`.

    Args:
        predictions: (n_classes, n_samples).
        sample_weight: (n_samples,).
        sums: completes sums over samples.
    """

    def __init__(self, predictions: Tensor, sample_weight: Tensor, sums: Sums) -> None:
        self._predictions, self._s, self._sums = predictions, sample_weight, sums
        self._mass = mass = self._backproject(predictions.sum(0)[None])[0]
        few = predictions.split(_CLASSES_AT_ONCE)
        square = torch.cat([some.square() @ sample_weight for some in few])
        self._diagonal = (mass - sums.total(square.double())).clamp_min(LEAST_CURVATURE * mass)

    def solve(self, right: Tensor) -> Tensor:
        """See `BiasSystem`."""
        solution = torch.zeros_like(right)
        residual = right - right.mean(1, keepdim=True)  # equal biases change nothing
        z = residual / self._diagonal
        search, rho = z, (residual * z).sum(1, keepdim=True)
        goal = _TOL**2 * rho
        for _ in range(_MAX_STEPS):
            if not bool((rho > goal).any()):
                break
            product = self._product(search)
            curvature = (search * product).sum(1, keepdim=True)
            # A row that is solved, or whose curvature is all rounding, rests.
            going = (rho > goal) & (curvature > 0)
            if not bool(going.any()):
                break
            alpha = torch.where(going, rho / curvature, 0.0)
            solution, residual = solution + alpha * search, residual - alpha * product
            z = residual / self._diagonal
            last, rho = rho, (residual * z).sum(1, keepdim=True)
            search = z + torch.where(going, rho / last, 0.0) * search
        return solution

    def _product(self, bias: Tensor) -> Tensor:
        """Multiply rows (r, n_classes) by H_b."""
        return self._mass * bias - self._backproject(bias.to(self._s.dtype) @ self._predictions)

    def _backproject(self, values: Tensor) -> Tensor:
        """Sum ``s_i v_i p_ik`` over the samples for values (r, n_samples)."""
        return self._sums.total(((values * self._s) @ self._predictions.T).double())


def bias_system(
    loss: Loss, parts: Sequence[Part], predictions: Tensor, sample_weight: Tensor, sums: Sums
) -> BiasSystem:
    """Make the system that suits the loss and its number of classes.

    Args:
        loss: of the samples.
        parts: the samples.
        predictions: (n_classes, n_samples).
        sample_weight: (n_samples,).
        sums: completes sums over samples.
    """
    if loss.couples_in_pairs and len(predictions) > MOST_FORMED:
        return MultipliedBiasSystem(predictions, sample_weight, sums)
    hessian = predictions.new_zeros(len(predictions), len(predictions), dtype=torch.float64)
    for part in parts:
        p = predictions[:, part.rows]
        hessian += part.loss.bias_hessian(p, part.weighted_spread(p))
    return FormedBiasSystem(sums.total(hessian))


def solve_psd(matrix: Tensor, right: Tensor) -> Tensor:
    """Least-squares solution with a positive semidefinite matrix; zero where it is not finite.

    Args:
        matrix: (m, m) float64, such as H_b, which is singular along equal biases.
        right: (m, r).
    """
    scale = matrix.diagonal().clamp_min(torch.finfo(matrix.dtype).tiny).rsqrt()
    try:
        values, vectors = torch.linalg.eigh(scale[:, None] * matrix * scale)
    except LinAlgError:
        return torch.zeros_like(right)
    if not bool(values.isfinite().all()):
        return torch.zeros_like(right)
    keep = values > values[-1:] * 1e-13
    inverse = torch.where(keep, 1 / values.where(keep, values.new_ones(())), 0.0)
    solution: Tensor = vectors @ (inverse[:, None] * (vectors.T @ (scale[:, None] * right)))
    return scale[:, None] * solution
