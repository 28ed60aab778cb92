"""Importance-sampled subsampled Newton-CG, warm-started along a path of penalties.

Each step takes the exact gradient (one read of the features), a Newton direction from a sampled
Hessian (`linprobe.solvers.sampled_hessian`), the direction's logits (one read), and then minimises
exactly over that direction, the one before, and the bias, on cached logits (no read). Gradients
and logits are products in the features' own precision, so the cached logits belong to the weight
that is kept in float64; low precision serves only the model of the Hessian.

Tried and left out (`docs/log.md`): all rows in the Hessian, uniform samples, no preconditioner,
one preconditioner per class, bfloat16 for whole passes, cheap bias solves (a bias that is off by
1e-7 nats leaves a floor of 1e-4 in the gap at l2 = 1e-7).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from linprobe.linalg import fast_bfloat16
from linprobe.problem import SoftmaxRegression
from linprobe.solvers.base import Point, Solution, Status
from linprobe.solvers.sampled_hessian import (
    NystromPreconditioner,
    Preconditioner,
    SampledHessian,
    conjugate_gradients,
    draw_rows,
    whitening,
)
from linprobe.solvers.subspace import Direction, Minimum, minimise_in_span

_SAFETY = 0.8  # aim below tol: the certificate recomputes the gap in float64
_WEAK_PROGRESS = 0.15  # ratio of successive gaps above which the model is made better
_STALLED_STEPS = 3
_SAMPLE_BYTES = 2e9
_MAX_WHITENED_FEATURES = 256
_LOW_PRECISION_L2 = 3e-6  # down to here bfloat16 serves unwhitened features


@dataclass(frozen=True)
class NewtonOptions:
    """Tuning of `SubsampledNewton`; no value changes the optimum, only the way to it.

    Attributes:
        sample_rows: rows of the sampled Hessian to begin with; doubled when progress is weak.
        cg_tol: relative accuracy of a Newton direction in the preconditioned norm.
        cg_steps: most conjugate-gradient steps for one direction.
        refresh_preconditioner: directions that share one preconditioner.
        seed: of the row samples.
    """

    sample_rows: int = 4000
    cg_tol: float = 0.1
    cg_steps: int = 60
    refresh_preconditioner: int = 3
    seed: int = 0


class SubsampledNewton:
    """Newton's method with exact gradients and a sampled Hessian; a `Solver`."""

    def __init__(self, problem: SoftmaxRegression, options: NewtonOptions | None = None) -> None:
        self.problem = problem
        self.options = options or NewtonOptions()
        self._generator = torch.Generator().manual_seed(self.options.seed)
        self._num_rows = self.options.sample_rows
        self._preconditioner: NystromPreconditioner | None = None
        self._age = 0
        self._norms = problem.squared_norms() * problem.sample_weight
        self._whitened = problem.num_features <= _MAX_WHITENED_FEATURES
        self._dtypes = self._model_dtypes()

    @property
    def sample_rows(self) -> int:
        """Rows of the sampled Hessian by now: what a solver of a like problem may begin with."""
        return self._num_rows

    def solve(
        self, l2: float, *, tol: float, max_passes: float, starts: tuple[Point, ...] = ()
    ) -> Solution:
        """Minimise P for this `l2`; see `linprobe.solvers.base.Solver`."""
        first_read = self.problem.num_reads
        accuracy = 1e-2 * tol * min(1.0, l2)  # the gap sees the bias through 1 / l2
        minimum = self._start(l2, starts, accuracy)
        self._num_rows = max(self.options.sample_rows, self._num_rows // 2)
        level = 0 if self._whitened or l2 > _LOW_PRECISION_L2 else 1
        previous: tuple[Direction, ...] = ()
        gaps: list[float] = []
        while True:
            residuals = self.problem.residuals(minimum.probabilities)
            gradient = self.problem.backproject(residuals) + l2 * minimum.point.weight
            gaps.append(float(gradient.square().sum()) / (2 * l2))
            passes = (self.problem.num_reads - first_read) / 2
            status = self._verdict(gaps, tol, passes, max_passes)
            if status is not None:
                point, value = minimum.point, minimum.objective
                return Solution(point, l2, value, gaps[-1], status, passes, len(gaps) - 1)
            if len(gaps) > 2 and gaps[-1] > _WEAK_PROGRESS * gaps[-2]:
                level += self._num_rows >= self._most_rows()
                self._num_rows = min(2 * self._num_rows, self._most_rows())
                self._age = self.options.refresh_preconditioner
            dtype = self._dtypes[min(level, len(self._dtypes) - 1)]
            weight = self._newton_direction(minimum.probabilities, gradient, l2, dtype)
            direction = Direction(weight, self.problem.logits(weight))
            minimum = minimise_in_span(
                self.problem, l2, minimum.point, (direction, *previous), accuracy=accuracy
            )
            previous = (direction,)

    def _start(self, l2: float, starts: tuple[Point, ...], accuracy: float) -> Minimum:
        problem = self.problem
        if not starts:
            features = problem.features
            zero = torch.zeros(
                problem.num_classes,
                problem.num_features,
                dtype=torch.float64,
                device=features.device,
            )
            logits = features.new_zeros(problem.num_classes, problem.num_samples)
            return minimise_in_span(
                problem, l2, Point(zero, zero.new_zeros(len(zero)), logits), accuracy=accuracy
            )
        base = starts[0]
        span = [Direction(base.weight, base.logits)]
        span += [Direction(p.weight - base.weight, p.logits - base.logits) for p in starts[1:]]
        return minimise_in_span(problem, l2, base, span, accuracy=accuracy)

    def _verdict(
        self, gaps: list[float], tol: float, passes: float, max_passes: float
    ) -> Status | None:
        if gaps[-1] <= _SAFETY * tol:
            return Status.CONVERGED
        if passes >= max_passes:
            return Status.MAX_PASSES_REACHED
        recent, before = gaps[-_STALLED_STEPS:], gaps[:-_STALLED_STEPS]
        if not all(map(_finite, recent)) or (before and min(recent) > 0.5 * min(before)):
            return Status.PRECISION_LIMIT
        return None

    def _model_dtypes(self) -> tuple[torch.dtype, ...]:
        """Precisions of the sampled Hessian, in the order in which they are tried."""
        features = self.problem.features
        if features.dtype == torch.float64:
            return (torch.float64,)
        cheap = torch.bfloat16 if fast_bfloat16(features.device) else torch.float32
        return (cheap, torch.float32, *((torch.float64,) if self._whitened else ()))

    def _most_rows(self) -> int:
        bytes_per_row = self.problem.num_features * self.problem.features.element_size()
        return int(min(self.problem.num_samples, max(4000, _SAMPLE_BYTES / bytes_per_row)))

    def _newton_direction(
        self, probabilities: Tensor, gradient: Tensor, l2: float, dtype: torch.dtype
    ) -> Tensor:
        unsure = (1 - probabilities.square().sum(0)).clamp_min(0)
        sample = draw_rows(self.problem, unsure * self._norms, self._num_rows, self._generator)
        rows = self.problem.rows(sample.index)
        p, s = probabilities[:, sample.index], sample.weight
        solve = self._solve_whitened if self._whitened else self._solve_preconditioned
        # Rounded to the features' dtype, so that its logits are exactly those of what is added.
        return solve(rows, p, s, gradient, l2, dtype).to(rows.dtype).double()

    def _solve_whitened(
        self, rows: Tensor, p: Tensor, s: Tensor, gradient: Tensor, l2: float, dtype: torch.dtype
    ) -> Tensor:
        transform, penalty = whitening(rows, p, s, l2)
        working = _working(dtype)
        whitened_rows = (rows.to(working) @ transform.to(working)).to(dtype)
        hessian = SampledHessian(whitened_rows, p.to(working), s.to(working), penalty.to(working))
        whitened = self._solve(hessian, (gradient @ transform).to(working), lambda z: z)
        return whitened.double() @ transform.T

    def _solve_preconditioned(
        self, rows: Tensor, p: Tensor, s: Tensor, gradient: Tensor, l2: float, dtype: torch.dtype
    ) -> Tensor:
        working = _working(dtype)
        rows, p, s = rows.to(dtype), p.to(working), s.to(working)
        if self._preconditioner is None or self._age >= self.options.refresh_preconditioner:
            self._preconditioner = NystromPreconditioner(rows, p, s, self.options.seed)
            self._age = 0
        self._age += 1
        hessian = SampledHessian(rows, p, s, s.new_full((1,), l2))
        return self._solve(hessian, gradient.to(working), self._preconditioner.at(l2))

    def _solve(
        self, hessian: SampledHessian, gradient: Tensor, precondition: Preconditioner
    ) -> Tensor:
        return conjugate_gradients(
            hessian,
            gradient,
            precondition=precondition,
            tol=self.options.cg_tol,
            max_steps=self.options.cg_steps,
        )


def _working(dtype: torch.dtype) -> torch.dtype:
    """Dtype of sums around products in `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _finite(value: float) -> bool:
    return value - value == 0.0
