"""Importance-sampled subsampled Newton-CG, warm-started along a path of penalties.

Each step takes the exact gradient (one read of the features), a Newton direction from a sampled
Hessian (a `NewtonModel`), the direction's logits (one read), and then minimises exactly over that
direction, the one before, and the bias, on cached logits (no read). Gradients and logits are
products in the features' own precision, so the cached logits belong to the weight that is kept in
float64; low precision serves only the model of the Hessian.

Tried and left out (`docs/log.md`): all rows in the Hessian, uniform samples, no preconditioner,
one preconditioner per class, bfloat16 for whole passes, cheap bias solves (a bias that is off by
1e-7 nats leaves a floor of 1e-4 in the gap at l2 = 1e-7).
"""

from dataclasses import dataclass
from math import isfinite
from typing import Protocol

import torch
from torch import Tensor

from linprobe.problem import SoftmaxRegression
from linprobe.solvers.base import Point, Solution, Status
from linprobe.solvers.sketched import SketchedModel
from linprobe.solvers.subspace import Direction, Minimum, minimise_in_span
from linprobe.solvers.whitened import WhitenedModel

_SAFETY = 0.8  # aim below tol: the certificate recomputes the gap in float64
_WEAK_PROGRESS = 0.15  # ratio of successive gaps above which the model is made better
_FULL_STEP = 0.85  # a good model's direction is taken nearly whole
_SPAN_ACCURACY = 1e-2  # of the gap, once it has gone through l2
_LOOSE = 0.05  # of the gap before a step that need not be seen after it
_STALLED_STEPS = 3
_SLOW = 1e-3  # of the tolerance, in as many steps
_NOISE = 1e-2  # of the features' precision: what can be told of differences of P
_SAMPLE_BYTES = 2e9
# Whitening costs the cube of the number of features and pays the more the smaller l2 is.
_ALWAYS_WHITENED = 256
_MAX_WHITENED, _WHITENED_L2 = 1024, 3e-7


class NewtonModel(Protocol):
    """What gives Newton directions.

    Attributes:
        first_rows: samples to begin with.
    """

    first_rows: int

    def begin(self, probabilities: Tensor, l2: float) -> None:
        """Prepare for a new `l2`, from the probabilities (n_classes, n_samples) at its start."""
        ...

    def direction(
        self, probabilities: Tensor, gradient: Tensor, l2: float, num_rows: int, level: int
    ) -> Tensor:
        """About minus the inverse Hessian times the gradient: (n_classes, n_features).

        Args:
            probabilities: (n_classes, n_samples) where the gradient was taken.
            gradient: of P over the weight at the best bias, (n_classes, n_features) float64.
            l2: as told to `begin`.
            num_rows: samples to build the Hessian from.
            level: raised from 0 when more rows no longer help.
        """
        ...


@dataclass(frozen=True)
class NewtonOptions:
    """Tuning of `SubsampledNewton`; no value changes the optimum, only the way to it.

    Attributes:
        sample_rows: rows of the sampled Hessian to begin with, doubled when they are too few;
            None: as many as the model asks for.
        seed: of the row samples.
    """

    sample_rows: int | None = None
    seed: int = 0


class SubsampledNewton:
    """Newton's method with exact gradients and a sampled Hessian; a `Solver`."""

    def __init__(self, problem: SoftmaxRegression, options: NewtonOptions | None = None) -> None:
        self.problem = problem
        self.options = options or NewtonOptions()
        self._generator = torch.Generator().manual_seed(self.options.seed)
        self._models: dict[type[NewtonModel], NewtonModel] = {}
        self._num_rows = 0
        bytes_per_row = problem.num_features * problem.features.element_size()
        self._most_rows = int(min(problem.num_samples, max(4000, _SAMPLE_BYTES / bytes_per_row)))

    @property
    def sample_rows(self) -> int:
        """Rows of the sampled Hessian by now: what a solver of a like problem may begin with."""
        return self._num_rows

    def solve(
        self, l2: float, *, tol: float, max_passes: float, starts: tuple[Point, ...] = ()
    ) -> Solution:
        """Minimise P for this `l2`; see `linprobe.solvers.base.Solver`."""
        problem = self.problem
        first_read = problem.num_reads
        noise = _NOISE * torch.finfo(problem.features.dtype).eps
        # The gap sees an error of the bias through 1 / l2.
        unit = _SPAN_ACCURACY * min(1.0, l2)
        minimum = self._start(l2, starts, unit * tol)
        model = self._model(l2)
        model.begin(minimum.probabilities, l2)
        self._num_rows = max(self.options.sample_rows or model.first_rows, self._num_rows // 2)
        level = 0
        previous: tuple[Direction, ...] = ()
        gaps: list[float] = []
        values: list[float] = []
        while True:
            residuals = problem.residuals(minimum.probabilities)
            gradient = problem.backproject(residuals) + l2 * minimum.point.weight
            gaps.append(float(gradient.square().sum()) / (2 * l2))
            passes = (problem.num_reads - first_read) / 2
            values.append(minimum.objective)
            status = Status.MAX_PASSES_REACHED if passes >= max_passes else None
            if gaps[-1] <= _SAFETY * tol:
                status = Status.CONVERGED
            elif status is None and _is_stalled(gaps, values, max(_SLOW * tol, noise)):
                status = Status.PRECISION_LIMIT
            if status is not None:
                point, value = minimum.point, minimum.objective
                return Solution(point, l2, value, gaps[-1], status, passes, len(gaps) - 1)
            if len(gaps) > 1 and gaps[-1] > _WEAK_PROGRESS * gaps[-2]:
                level += self._improve(minimum.model_step)
            weight = model.direction(minimum.probabilities, gradient, l2, self._num_rows, level)
            # Rounded to the features' dtype, so that its logits are exactly those of what is added.
            weight = weight.to(problem.features.dtype).double()
            direction = Direction(weight, problem.logits(weight))
            span = (direction, *previous)
            accuracy = unit * max(tol, _LOOSE * gaps[-1])
            minimum = minimise_in_span(
                problem, l2, minimum.point, span, accuracy=accuracy, known=minimum
            )
            previous = (direction,)

    def _model(self, l2: float) -> NewtonModel:
        num_features = self.problem.num_features
        widest = _MAX_WHITENED if l2 <= _WHITENED_L2 else _ALWAYS_WHITENED
        kind = WhitenedModel if num_features <= widest else SketchedModel
        if kind not in self._models:
            self._models[kind] = kind(self.problem, self._generator)
        return self._models[kind]

    def _improve(self, model_step: float) -> int:
        """After weak progress: sample more rows, or say by 1 that precision must rise.

        Where the exact curvature along the direction asks for a full step, the rows were enough,
        and the way is long because P is far from quadratic: nothing to improve.
        """
        if _FULL_STEP < model_step < 1 / _FULL_STEP:
            return 0
        at_most = self._num_rows >= self._most_rows
        self._num_rows = min(2 * self._num_rows, self._most_rows)
        return int(at_most)

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


def _is_stalled(gaps: list[float], values: list[float], least: float) -> bool:
    """Whether neither the gap nor P has fallen in the last steps.

    The gap alone may rest for long where the features' variances span many decades.
    """
    recent, before = gaps[-_STALLED_STEPS:], gaps[:-_STALLED_STEPS]
    if not all(map(isfinite, recent)):
        return True
    if not before or min(recent) <= 0.5 * min(before):
        return False
    return not values[-1 - _STALLED_STEPS] - values[-1] > least
