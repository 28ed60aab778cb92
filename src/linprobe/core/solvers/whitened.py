"""Newton directions for layers of few features: whitened, rows drawn by leverage.

The deep layers of an untrained network have few features whose variances span twelve decades.
With the weighted Gram matrix ``A = U diag(a) U^T`` of sampled rows, ``z = x T`` for
``T = U diag(a + l2)^(-1/2)`` are coordinates in which the Hessian is near the identity: it can be
multiplied in low precision, conjugate gradients need no preconditioner, and ``||z_i||^2`` is the
leverage of a sample, which tells how much the Hessian owes it in any direction, however small
its variance.
"""

from dataclasses import replace

import torch
from torch import Tensor

from linprobe.core.linalg import fast_bfloat16, take_columns
from linprobe.core.problem import LinearProblem
from linprobe.core.solvers.base import NewtonOptions
from linprobe.core.solvers.factorised import FactorisedHessian
from linprobe.core.solvers.model import WEAK_PROGRESS
from linprobe.core.solvers.sampled_hessian import (
    CGOptions,
    SampledHessian,
    conjugate_gradients,
    curvature_root,
    draw_rows,
    rows_in_room,
    seen_by_all,
)
from linprobe.core.solvers.subspace import Direction

_CG = CGOptions(tol=0.05, max_steps=60)
_FIRST_ROWS = _GRAM_ROWS = 8000
_REWHITEN_RATIO = 0.05
# Below, what float32 sums of raw features leave out of small variances shows in the gap.
_FLOAT64_L2 = 3e-8
_LEAST = 1e-18  # share of the largest eigenvalue; directions below it are rounding
# Where conjugate gradients don't suffice, because classes are coupled: the largest Hessian to
# factorise, and the decrement, as a share of the one before, from which it is factorised anew.
_MAX_VARIABLES, _MAX_CLASSES = 2600, 24
_RENEW = 0.3


class WhitenedModel:
    """A `NewtonModel` that reads all features once for each `l2`, to whiten them.

    From then on the whitened features are what is read: sums in whitened coordinates don't cancel,
    so float32 serves for penalties where it would be all rounding on the raw ones.
    """

    def __init__(
        self, problem: LinearProblem, options: NewtonOptions, generator: torch.Generator
    ) -> None:
        self._problem, self._options, self._generator = problem, options, generator
        self._leverage = problem.squared_norms()
        self._whitened_at = self._l2 = float("inf")
        # Set by `begin`, which is called first.
        self._transform: Tensor
        self._back: Tensor
        self._penalty: Tensor
        self._seen: LinearProblem
        size = problem.num_features * problem.num_classes
        few = size <= _MAX_VARIABLES and problem.num_classes <= _MAX_CLASSES
        self._may_factorise = few and problem.loss.couples_in_pairs
        self._factorise = options.factorise and self._may_factorise
        self._most_rows = rows_in_room(problem, options.most_rows or problem.total_samples)
        self._first_rows = rows_in_room(problem, options.sample_rows or _FIRST_ROWS)
        self._num_rows = self._first_rows
        self._level = 0
        self._inverse: FactorisedHessian | None = None
        self._decrement = 0.0
        self._factorised_at: Tensor | None = None
        exact = problem.dtype
        cheap = fast_bfloat16(problem.device) and exact != torch.float64
        self._dtypes = [torch.bfloat16, exact] if cheap else [exact]

    def begin(self, predictions: Tensor, l2: float) -> None:
        """See `NewtonModel`."""
        self._level, self._num_rows = 0, max(self._first_rows, self._num_rows // 2)
        # The coordinates serve for smaller l2 too, the worse the farther; then they cost steps.
        self._inverse = None
        if l2 > _REWHITEN_RATIO * self._whitened_at:
            self._penalty *= l2 / self._l2
            self._l2 = l2
            return
        self._l2 = self._whitened_at = l2
        problem = self._problem
        importance = problem.loss.importance(predictions) * self._leverage * problem.sample_weight
        sample = draw_rows(problem, importance, _GRAM_ROWS, self._generator)
        root = curvature_root(problem.loss, take_columns(predictions, sample.index), sample.weight)
        # In float64: eigenvalues below 1e-7 of the largest matter at small l2.
        values, vectors = torch.linalg.eigh(_gram(problem, sample.index, root))
        values, vectors = problem.sums.agreed(values), problem.sums.agreed(vectors)
        floored = (values.clamp_min(0) + l2).clamp_min(_LEAST * float(values[-1]))
        self._transform, self._penalty = vectors * floored.rsqrt(), l2 / floored
        self._back = (vectors * floored.sqrt()).T
        self._seen = problem.transformed(
            self._transform, torch.float64 if l2 <= _FLOAT64_L2 else problem.dtype
        )
        self._leverage = self._seen.squared_norms()

    def backproject(self, residuals: Tensor) -> Tensor:
        """See `NewtonModel`."""
        return self._seen.backproject(residuals) @ self._back

    def direction(
        self, predictions: Tensor, gradient: Tensor, *, with_logits: bool = True
    ) -> Direction:
        """See `NewtonModel`."""
        whitened = (gradient @ self._transform).to(self._seen.dtype)
        step = None if self._factorise else self._by_iteration(predictions, whitened)
        if step is None:
            step = self._by_factorisation(predictions, whitened)
        step = self._problem.sums.agreed(step)
        logits = self._seen.logits(step) if with_logits else step[:, :0]
        return Direction(step.double() @ self._transform.T, logits)

    def improve(self) -> None:
        """See `NewtonModel`."""
        if self._level < len(self._dtypes) - 1:
            self._level += 1
        elif self._may_factorise:
            self._factorise = True
        else:
            self._num_rows = min(2 * self._num_rows, self._most_rows)

    def is_weak(self, ratio: float) -> bool:
        """See `NewtonModel`."""
        return ratio > WEAK_PROGRESS

    @property
    def learned(self) -> NewtonOptions:
        """See `NewtonModel`."""
        return replace(self._options, sample_rows=self._num_rows, factorise=self._factorise)

    def _by_iteration(self, predictions: Tensor, gradient: Tensor) -> Tensor | None:
        """None where a factorised Hessian is called for."""
        seen = self._seen
        importance = seen.loss.importance(predictions) * self._leverage * seen.sample_weight
        sample = draw_rows(seen, importance, self._num_rows, self._generator)
        rows = seen.sums.gathered(seen.rows(sample.index).to(self._dtypes[self._level]))
        p, s = seen_by_all(seen, predictions, sample)
        hessian = SampledHessian(rows, seen.loss, p, s, self._penalty.to(p.dtype))
        step, solved = conjugate_gradients(hessian, gradient, precondition=_same, options=_CG)
        self._factorise = not solved and self._may_factorise
        return None if self._factorise else step

    def _by_factorisation(self, predictions: Tensor, gradient: Tensor) -> Tensor:
        if self._inverse is not None:
            step = self._inverse(gradient)
            decrement = float((step * gradient).sum())
            # At the same predictions another sample would be no better.
            renew = decrement > _RENEW * self._decrement and predictions is not self._factorised_at
            self._decrement = decrement
            if not renew:
                return -step
        self._factorised_at = predictions
        self._inverse = FactorisedHessian(
            self._seen,
            predictions,
            self._leverage,
            self._penalty,
            rows_in_room(self._problem, self._options.pair_rows * gradient.shape[1]),
            self._generator,
        )
        step = self._inverse(gradient)
        self._decrement = float((step * gradient).sum())
        return -step


def _gram(problem: LinearProblem, index: Tensor, root: Tensor) -> Tensor:
    """Sum ``root_i^2 x_i x_i^T`` over the rows of an index (m,): (n_features, n_features)."""
    some = rows_in_room(problem, _GRAM_ROWS)
    gram = root.new_zeros(problem.num_features, problem.num_features, dtype=torch.float64)
    for rows, factor in zip(index.split(some), root.double().split(some), strict=True):
        scaled = problem.rows(rows).double().mul_(factor[:, None])
        gram += scaled.T @ scaled
    return problem.sums.total(gram)


def _same(gradient: Tensor) -> Tensor:
    return gradient
