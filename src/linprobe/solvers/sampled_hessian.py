"""A model of the Hessian from a sample of rows, and conjugate gradients on it.

Few samples carry most of the Hessian: those that the probe is unsure of. Rows are therefore
drawn with probability proportional to ``s_i (1 - sum_k p_ik^2) ||x_i||^2``, an upper bound of
each one's contribution to its trace, and reweighted so that the model is unbiased.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from linprobe.linalg import backproject, class_logits
from linprobe.problem import SoftmaxRegression, bias_hessian, hessian_logits

_UNIFORM_SHARE = 0.02
_EXACT_GRAM_FEATURES = 512
_SKETCH_RANK = 150


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
        l2: the penalty.
    """

    def __init__(
        self, features: Tensor, probabilities: Tensor, sample_weight: Tensor, l2: float
    ) -> None:
        self.features, self.probabilities = features, probabilities
        self.sample_weight, self.l2 = sample_weight, l2
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
        return back.add_(direction, alpha=self.l2)


class GramPreconditioner:
    """Inverse of ``A + l2 I`` for the Gram matrix A of the sample, the same for each class.

    A is weighted by the mean over classes of ``p_k (1 - p_k)``, which makes ``I_K (x) A`` the
    Hessian without its coupling between classes. Up to 512 features it is decomposed exactly,
    beyond that by a randomised Nystrom sketch (Frangella, Tropp & Udell 2023, Algorithm 2.1),
    whose smallest eigenvalue stands for the tail.
    """

    def __init__(
        self, features: Tensor, probabilities: Tensor, sample_weight: Tensor, seed: int
    ) -> None:
        num_classes = len(probabilities)
        curvature = (1 - probabilities.square().sum(0)).clamp_min(0) / num_classes
        root = (curvature * sample_weight).sqrt()
        if features.shape[1] <= _EXACT_GRAM_FEATURES:
            # In float64: eigenvalues below 1e-7 of the largest matter at small l2.
            scaled = features.double() * root[:, None]
            values, vectors = torch.linalg.eigh(scaled.T @ scaled)
            self._values, self._vectors = values.clamp_min(0), vectors
            self._tail = 0.0
        else:
            self._values, self._vectors = _nystrom(features, root, seed)
            self._tail = float(self._values[0])
        self._complete = features.shape[1] <= _EXACT_GRAM_FEATURES

    def apply(self, gradient: Tensor, l2: float) -> Tensor:
        """Preconditioned (n_classes, n_features)."""
        vectors, values = self._vectors.to(gradient.dtype), self._values.to(gradient.dtype)
        inside = gradient @ vectors
        if self._complete:
            return (inside / (values + l2)) @ vectors.T
        floor = 1 / (self._tail + l2)
        inside *= 1 / (values + l2) - floor
        return torch.addmm(gradient * floor, inside, vectors.T)


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
    preconditioner: GramPreconditioner,
    gradient: Tensor,
    *,
    tol: float,
    max_steps: int,
) -> Tensor:
    """Solve ``hessian d = -gradient`` to relative accuracy `tol` in the preconditioned norm."""
    direction = torch.zeros_like(gradient)
    residual = -gradient
    z = preconditioner.apply(residual, hessian.l2)
    search, rho = z, (residual * z).sum()
    goal = tol**2 * float(rho)
    for _ in range(max_steps):
        product = hessian.product(search)
        curvature = (search * product).sum()
        if not float(curvature) > 0:
            break
        alpha = rho / curvature
        direction = direction + alpha * search
        residual = residual - alpha * product
        z = preconditioner.apply(residual, hessian.l2)
        last, rho = rho, (residual * z).sum()
        if not float(rho) > goal:
            break
        search = z + (rho / last) * search
    return direction if float(direction.abs().sum()) > 0 else z
