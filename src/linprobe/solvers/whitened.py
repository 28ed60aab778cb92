"""Newton directions for layers of few features: whitened, rows drawn by leverage.

The deep layers of an untrained network have few features whose variances span twelve decades.
With the weighted Gram matrix ``A = U diag(a) U^T`` of sampled rows, ``z = x T`` for
``T = U diag(a + l2)^(-1/2)`` are coordinates in which the Hessian is near the identity: it can be
multiplied in low precision, conjugate gradients need no preconditioner, and ``||z_i||^2`` is the
leverage of a sample, which tells how much the Hessian owes it in any direction, however small
its variance.
"""

import torch
from torch import Tensor

from linprobe.linalg import fast_bfloat16
from linprobe.problem import SoftmaxRegression
from linprobe.solvers.dense import DenseInverse
from linprobe.solvers.sampled_hessian import (
    CGOptions,
    SampledHessian,
    conjugate_gradients,
    curvature_root,
    draw_rows,
    unsureness,
)

_CG = CGOptions(tol=0.05, max_steps=60)
_PRECONDITIONED = CGOptions(tol=0.05, max_steps=40)  # more cost as much as factorising anew
_GRAM_ROWS = 8000
_SERVES_DOWN_TO = 0.05
# Where conjugate gradients don't suffice, because classes are coupled: the largest Hessian to
# factorise, and rows for each of its columns.
_MOST_DENSE = 2600
_DENSE_ROWS = 8


class WhitenedModel:
    """A `NewtonModel` that reads all features once for each `l2`, to whiten them."""

    first_rows = 8000

    def __init__(self, problem: SoftmaxRegression, generator: torch.Generator) -> None:
        self._problem, self._generator = problem, generator
        self._leverage = problem.squared_norms()
        self._whitened_at = self._l2 = float("inf")
        # Set by `begin`, which is called first.
        self._transform: Tensor
        self._penalty: Tensor
        self._whitened: Tensor
        self._level = -1
        # Rows of the Hessian that is factorised, once iterations no longer suffice.
        self._dense_rows = self._rows_before = 0
        self._inverse: DenseInverse | None = None
        features = problem.features
        cheap = fast_bfloat16(features.device) and features.dtype != torch.float64
        self._dtypes = ([torch.bfloat16] if cheap else []) + [torch.float32, torch.float64]
        if features.dtype == torch.float64:
            self._dtypes = [torch.float64]

    def begin(self, probabilities: Tensor, l2: float) -> None:
        """See `NewtonModel`."""
        # The coordinates serve for smaller l2 too, the worse the farther; then they cost steps.
        if l2 > _SERVES_DOWN_TO * self._whitened_at:
            self._penalty *= l2 / self._l2
            self._l2 = l2
            return
        self._l2 = self._whitened_at = l2
        problem = self._problem
        importance = unsureness(probabilities) * self._leverage * problem.sample_weight
        sample = draw_rows(problem, importance, _GRAM_ROWS, self._generator)
        root = curvature_root(probabilities[:, sample.index], sample.weight)
        # In float64: eigenvalues below 1e-7 of the largest matter at small l2.
        scaled = problem.rows(sample.index).double().mul_(root.double()[:, None])
        values, vectors = torch.linalg.eigh(scaled.T @ scaled)
        floored = values.clamp_min(0) + l2
        self._transform, self._penalty = vectors * floored.rsqrt(), l2 / floored
        self._level, self._inverse = -1, None
        self._whiten(0)
        self._leverage = (
            torch.linalg.vector_norm(self._whitened, dim=1).square().to(problem.features.dtype)
        )

    def _whiten(self, level: int) -> None:
        if level == self._level:
            return
        self._level, dtype = level, self._dtypes[level]
        working = torch.float64 if dtype == torch.float64 else torch.float32
        features = self._problem.features.to(working)
        self._whitened = (features @ self._transform.to(working)).to(dtype)

    def direction(
        self, probabilities: Tensor, gradient: Tensor, l2: float, num_rows: int, level: int
    ) -> Tensor:
        """See `NewtonModel`."""
        problem = self._problem
        self._whiten(min(level, len(self._dtypes) - 1))
        if self._dense_rows:
            # Rows that conjugate gradients were given in vain are not to be paid for again.
            num_rows = max(self._dense_rows, self._dense_rows * num_rows // self._rows_before)
        importance = unsureness(probabilities) * self._leverage * problem.sample_weight
        sample = draw_rows(problem, importance, num_rows, self._generator)
        working = torch.float64 if self._whitened.dtype == torch.float64 else torch.float32
        rows, p = self._whitened[sample.index], probabilities[:, sample.index].to(working)
        weight, penalty = sample.weight.to(working), self._penalty.to(working)
        right = (gradient @ self._transform).to(working)
        found, solved, size = right, False, right.numel()
        if self._inverse or not self._dense_rows:
            # A Hessian that was factorised before is a good preconditioner of the next ones.
            hessian = SampledHessian(rows, p, weight, penalty)
            options = _PRECONDITIONED if self._inverse else _CG
            found, solved = conjugate_gradients(
                hessian, right, precondition=self._inverse or _same, options=options
            )
        if self._dense_rows and not solved:
            self._inverse = DenseInverse(rows.to(working), p, weight, penalty)
            found = -self._inverse(right)
        elif not solved and size <= _MOST_DENSE:
            self._dense_rows, self._rows_before = _DENSE_ROWS * size, num_rows
        return found.double() @ self._transform.T


def _same(gradient: Tensor) -> Tensor:
    return gradient
