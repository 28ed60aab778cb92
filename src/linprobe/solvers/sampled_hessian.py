"""A model of the Hessian from a sample of rows, and conjugate gradients on it.

Few samples carry most of the Hessian: those that the probe is unsure of. Rows are therefore
drawn with probability proportional to ``s_i (1 - sum_k p_ik^2) ||x_i||^2``, an upper bound of
each one's contribution to its trace, and reweighted so that the model is unbiased.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from linprobe.linalg import backproject, class_logits
from linprobe.problem import SoftmaxRegression, bias_hessian, hessian_logits

_UNIFORM_SHARE = 0.02
_SKETCH_RANK = 150
_WHITENING_ROWS = 8000

Preconditioner = Callable[[Tensor], Tensor]
"""Gradient (n_classes, n_features) to something of the same shape that is nearer the solution."""


@dataclass(frozen=True)
class RowSample:
    """Drawn rows: `index` (m,) int64 and their `weight` (m,), which includes s_i."""

    index: Tensor
    weight: Tensor


def draw_rows(
    problem: SoftmaxRegression, importance: Tensor, num_rows: int, generator: torch.Generator
) -> RowSample:
    """Draw about `num_rows` distinct rows; all of them if that is over half of the samples.

    Systematic sampling (one uniform offset, equal strides through the cumulated importance) has
    less variance than independent draws and repeats a row only if its share exceeds a stride.
    """
    used = problem.sample_weight > 0
    if 2 * num_rows >= int(used.sum()):
        index = used.nonzero()[:, 0]
        return RowSample(index, problem.sample_weight[index])
    share = importance.double() / importance.sum(dtype=torch.float64)
    share = (1 - _UNIFORM_SHARE) * share + _UNIFORM_SHARE * problem.sample_weight.double()
    offset = torch.rand((), generator=generator, dtype=torch.float64).item()
    ticks = torch.arange(num_rows, dtype=torch.float64, device=share.device) + offset
    index = torch.searchsorted(share.cumsum(0), ticks / num_rows).clamp_(max=len(share) - 1)
    index, count = torch.unique_consecutive(index, return_counts=True)
    weight = problem.sample_weight[index] * (count / (num_rows * share[index])).to(
        problem.sample_weight.dtype
    )
    return RowSample(index, weight)


class SampledHessian:
    """Hessian of P over the weight, with the bias eliminated, from sampled rows.

    Args:
        features: (m, n_features) of the sampled rows, in the dtype to multiply in.
        probabilities: (n_classes, m) float32 or float64.
        sample_weight: (m,) as `RowSample.weight`.
        penalty: second derivative of the penalty along each feature: (n_features,), or (1,)
            where it is the same for all.
    """

    def __init__(
        self, features: Tensor, probabilities: Tensor, sample_weight: Tensor, penalty: Tensor
    ) -> None:
        self.features, self.probabilities = features, probabilities
        self.sample_weight, self.penalty = sample_weight, penalty
        hessian = bias_hessian(probabilities, sample_weight)
        self._bias_inverse = torch.linalg.pinv(hessian, hermitian=True, rtol=1e-10)

    def product(self, direction: Tensor) -> Tensor:
        """Hessian times `direction` (n_classes, n_features), float32 or float64."""
        p, s, dtype = self.probabilities, self.sample_weight, self.probabilities.dtype
        logits = class_logits(self.features, direction.to(self.features.dtype)).to(dtype)
        curved = hessian_logits(p, s, logits)
        bias = self._bias_inverse @ curved.sum(1, dtype=torch.float64)
        curved -= hessian_logits(p, s, bias.to(dtype)[:, None])
        back = backproject(curved.to(self.features.dtype), self.features).to(dtype)
        return back.add_(direction * self.penalty)


def _curvature_root(probabilities: Tensor, sample_weight: Tensor) -> Tensor:
    """Root of each row's weight in the Gram matrix A: (m,).

    A row counts by the mean over classes of ``p_k (1 - p_k)``, which makes ``I_K (x) A`` the
    Hessian without its coupling between classes.
    """
    curvature = (1 - probabilities.square().sum(0)).clamp_min(0) / len(probabilities)
    return (curvature * sample_weight).sqrt()


def whitening(
    features: Tensor, probabilities: Tensor, sample_weight: Tensor, l2: float
) -> tuple[Tensor, Tensor]:
    """Coordinates in which the Hessian is near the identity, for layers of few features.

    With ``A = U diag(a) U^T`` they are ``x T`` for ``T = U diag(a + l2)^(-1/2)``. There the
    Hessian's eigenvalues are of order one even where those of A span twelve decades, so that it
    can be multiplied in low precision, and conjugate gradients need no preconditioner.

    Args:
        features: (m, n_features); some 8,000 of them are used.
        probabilities: (n_classes, m).
        sample_weight: (m,).
        l2: the penalty.

    Returns:
        T (n_features, n_features) and the penalty in the new coordinates (n_features,), float64.
    """
    stride = -(-len(features) // _WHITENING_ROWS)
    root = _curvature_root(probabilities[:, ::stride], stride * sample_weight[::stride])
    # In float64: eigenvalues below 1e-7 of the largest matter at small l2.
    scaled = features[::stride].double() * root.double()[:, None]
    values, vectors = torch.linalg.eigh(scaled.T @ scaled)
    floored = values.clamp_min(0) + l2
    return vectors * floored.rsqrt(), l2 / floored


class NystromPreconditioner:
    """Approximate inverse of ``A + l2 I`` for layers of many features.

    A is the Gram matrix of `_curvature_root`, sketched by a randomised Nystrom approximation
    (Frangella, Tropp & Udell 2023, Algorithm 2.1), whose smallest eigenvalue stands for the
    tail. The same for each class.
    """

    def __init__(
        self, features: Tensor, probabilities: Tensor, sample_weight: Tensor, seed: int
    ) -> None:
        root = _curvature_root(probabilities, sample_weight)
        self._values, self._vectors = _nystrom(features, root, seed)

    def at(self, l2: float) -> Preconditioner:
        """The map for this penalty."""
        floor = 1 / (float(self._values[0]) + l2)
        factors = 1 / (self._values + l2) - floor

        def apply(gradient: Tensor) -> Tensor:
            inside = (gradient @ self._vectors).mul_(factors)
            return torch.addmm(gradient * floor, inside, self._vectors.T)

        return apply


def _nystrom(features: Tensor, root: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Leading eigenvalues (ascending) and vectors of ``(root x)^T (root x)``."""
    rank = min(_SKETCH_RANK, *features.shape)
    generator = torch.Generator(features.device).manual_seed(seed)
    test = torch.randn(
        features.shape[1], rank, generator=generator, device=features.device, dtype=root.dtype
    )
    test = torch.linalg.qr(test).Q
    inside = (features @ test.to(features.dtype)).to(root.dtype) * root.square()[:, None]
    sketch = (features.T @ inside.to(features.dtype)).to(root.dtype)
    core = test.T @ sketch
    shift = float(torch.finfo(features.dtype).eps) * float(core.diagonal().sum())
    sketch += shift * test
    core = test.T @ sketch
    values, vectors = torch.linalg.eigh((core + core.T) / 2)
    half = (sketch @ vectors) * values.clamp_min(shift).rsqrt()
    left, singular, _ = torch.linalg.svd(half, full_matrices=False)
    return (singular.square() - shift).clamp_min(0).flip(0), left.flip(1)


def conjugate_gradients(
    hessian: SampledHessian,
    gradient: Tensor,
    *,
    precondition: Preconditioner,
    tol: float,
    max_steps: int,
) -> Tensor:
    """Solve ``hessian d = -gradient`` to relative accuracy `tol` in the preconditioned norm."""
    direction = torch.zeros_like(gradient)
    residual = -gradient
    z = precondition(residual)
    search, rho = z, (residual * z).sum()
    goal = tol**2 * float(rho)
    for step in range(max_steps):
        product = hessian.product(search)
        curvature = (search * product).sum()
        if not float(curvature) > 0:
            return direction if step else z
        alpha = rho / curvature
        direction = direction + alpha * search
        residual = residual - alpha * product
        z = precondition(residual)
        last, rho = rho, (residual * z).sum()
        if not float(rho) > goal:
            break
        search = z + (rho / last) * search
    return direction
