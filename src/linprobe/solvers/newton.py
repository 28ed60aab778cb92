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

from dataclasses import replace
from math import isfinite

import torch
from torch import Tensor

from linprobe.problem import SoftmaxRegression
from linprobe.solvers.base import Point, Solution, Status
from linprobe.solvers.model import NewtonModel, NewtonOptions
from linprobe.solvers.sketched import SketchedModel
from linprobe.solvers.subspace import Direction, Minimum, balance, minimise_in_span
from linprobe.solvers.whitened import WhitenedModel

_SAFETY = 0.8  # aim below tol: the certificate recomputes the gap in float64
_WEAK_PROGRESS = 0.15  # ratio of successive gaps above which the model is made better
_FULL_STEP = 0.85  # a good model's direction is taken nearly whole
_SPAN_ACCURACY = 0.02  # of the tolerance
_LOOSE = 0.05  # of the gap: what a step is expected to leave of it
_START_SHARE = 1e-3
# Balancing predictions to first order leaves out the square of a bias step, of which the gap makes
# the fourth power over l2: up to this share of (l2 gap)^(1/4) it does not show.
_SPREAD = 0.7
_STALLED_STEPS = 3
_SLOW = 1e-3  # of the tolerance, in as many steps
_NOISE = 1e-2  # of the features' precision: what can be told of differences of P
# Whitening costs the cube of the number of features and pays the more the smaller l2 is.
_ALWAYS_WHITENED = 256
_MAX_WHITENED, _WHITENED_L2 = 1024, 3e-7


class SubsampledNewton:
    """Newton's method with exact gradients and a sampled Hessian; a `Solver`."""

    def __init__(self, problem: SoftmaxRegression, options: NewtonOptions | None = None) -> None:
        self.problem = problem
        self.options = options or NewtonOptions()
        self._generator = torch.Generator().manual_seed(self.options.seed)
        self._models: dict[type[NewtonModel], NewtonModel] = {}
        self._last: NewtonModel | None = None

    @property
    def learned(self) -> NewtonOptions:
        """What a solver of a like problem may begin with."""
        return self.options if self._last is None else self._last.learned

    def solve(
        self, l2: float, *, tol: float, max_passes: float, starts: tuple[Point, ...] = ()
    ) -> Solution:
        """Minimise P for this `l2`; see `linprobe.solvers.base.Solver`."""
        problem = self.problem
        first_read = problem.num_reads
        noise = _NOISE * torch.finfo(problem.features.dtype).eps
        goal = tol
        minimum = self._start(l2, starts, _SPAN_ACCURACY * tol * min(1.0, l2))
        model = self._model(l2)
        model.begin(minimum.probabilities, l2)
        previous: tuple[Direction, ...] = ()
        gaps: list[float] = []
        values: list[float] = []
        while True:
            minimum, residuals, bias_step, cost = self._balanced(l2, minimum, _SPAN_ACCURACY * goal)
            gradient = model.backproject(residuals) + l2 * minimum.point.weight
            gaps.append(cost + float(gradient.square().sum()) / (2 * l2))
            passes = (problem.num_reads - first_read) / 2
            values.append(minimum.objective)
            status = Status.MAX_PASSES_REACHED if passes >= max_passes else None
            if gaps[-1] <= _SAFETY * tol:
                status = Status.CONVERGED
            elif status is None and _is_stalled(gaps, values, max(_SLOW * tol, noise)):
                status = Status.PRECISION_LIMIT
            if status is not None:
                point, value = minimum.point, minimum.objective
                point = replace(point, bias=point.bias + bias_step)
                return Solution(point, l2, value, gaps[-1], status, passes, len(gaps) - 1)
            if len(gaps) > 1 and gaps[-1] > _WEAK_PROGRESS * gaps[-2]:
                # Where the exact curvature along the direction asks for a full step, the model is
                # good, and the way is long because P is far from quadratic.
                if not _FULL_STEP < minimum.model_step < 1 / _FULL_STEP:
                    model.improve()
            p = minimum.probabilities
            direction = model.direction(p, gradient)
            direction = direction.with_best_bias(problem, p)
            # What is left along Newton's direction leaves as large a share of the gap.
            goal = max(tol, _LOOSE * gaps[-1])
            minimum = minimise_in_span(
                problem,
                l2,
                minimum.point,
                (direction, *previous),
                accuracy=0.0,
                share=_SPAN_ACCURACY * goal / gaps[-1],
                known=minimum,
            )
            previous = (direction,)

    def _balanced(
        self, l2: float, minimum: Minimum, gap: float
    ) -> tuple[Minimum, Tensor, Tensor, float]:
        """What `balance` gives, at a bias that is near enough to the best for a gap like this."""
        most = min(0.5, _SPREAD * (l2 * gap) ** 0.25)
        found = balance(self.problem, minimum.probabilities)
        if float(found[1].max() - found[1].min()) > most:
            accuracy = min(1.0, l2) * gap
            point = minimum.point
            nearer = minimise_in_span(self.problem, l2, point, accuracy=accuracy, known=minimum)
            minimum = replace(nearer, model_step=minimum.model_step)
            found = balance(self.problem, minimum.probabilities)
        if float(found[1].max() - found[1].min()) > 0.5:
            found = self.problem.residuals(minimum.probabilities), 0 * found[1], 0.0
        return minimum, *found

    def _model(self, l2: float) -> NewtonModel:
        num_features = self.problem.num_features
        widest = _MAX_WHITENED if l2 <= _WHITENED_L2 else _ALWAYS_WHITENED
        kind = WhitenedModel if num_features <= widest else SketchedModel
        if kind not in self._models:
            self._models[kind] = kind(self.problem, self.options, self._generator)
        self._last = self._models[kind]
        return self._last

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
        starts = tuple(replace(p, logits=problem.margins(p.logits.clone())) for p in starts)
        base = starts[0]
        span = [Direction(base.weight, base.logits)]
        span += [Direction(p.weight - base.weight, p.logits - base.logits) for p in starts[1:]]
        return minimise_in_span(problem, l2, base, span, accuracy=accuracy, share=_START_SHARE)


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
