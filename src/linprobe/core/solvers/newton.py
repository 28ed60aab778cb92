"""Importance-sampled subsampled Newton, warm-started along a path of penalties.

Each step takes the exact gradient (one read of the features), a Newton direction from a model of
the Hessian (a `NewtonModel`), the direction's logits (one read), and then minimises over that
direction, the one before, and the bias, on cached logits (no read), as far as the next step can
make use of. Low precision serves only the model of the Hessian. Small penalties in float32 rest on
four habits: features are read in whitened coordinates, logits are margins over the sample's own
label, a direction brings its best bias with it, and what a bias that is not quite the best leaves
in the gradient is taken out to first order instead of being searched for.

Tried and left out (`docs/log.md`): all rows in the Hessian, uniform samples, no preconditioner,
one preconditioner per class, bfloat16 for whole passes, several Newton steps on the sampled rows
for each pass over all.
"""

from dataclasses import replace
from math import exp, inf, isfinite, isinf, log

import torch
from torch import Tensor

from linprobe.core.linalg import LinAlgError
from linprobe.core.losses import LOWEST_LOGIT
from linprobe.core.problem import LinearProblem
from linprobe.core.solvers.base import NewtonOptions, Point, Solution, Status
from linprobe.core.solvers.model import NewtonModel
from linprobe.core.solvers.sketched import SketchedModel
from linprobe.core.solvers.subspace import Balanced, Direction, Minimum, balance, minimise_in_span
from linprobe.core.solvers.whitened import WhitenedModel
from linprobe.core.sums import least

_SAFETY = 0.8  # aim below tol: the certificate recomputes the gap in float64
_FULL_STEP = 0.85  # a good model's direction is taken nearly whole
_SPAN_ACCURACY = 0.02  # of the tolerance, or of what a step is expected to leave of the gap
_LOOSE = 0.05  # of the gap: what a step is expected to leave
_START_SHARE = 1e-3  # of the first decrement that is left to the first direction
# Balancing predictions to first order leaves out the square of a bias step, of which the gap makes
# the fourth power over l2: up to this share of (l2 gap)^(1/4) it does not show.
_SPREAD, _MAX_SPREAD = 0.7, 0.5
_STALLED_STEPS = 3
_SLOW = 1e-6  # of the tolerance, in as many steps
_NOISE = 1e-2  # of the features' precision: what can be told of differences of P
# Whitening costs the cube of the number of features and pays the more the smaller l2 is, and the
# more rows there are for each feature.
_ALWAYS_WHITENED = 256
_MAX_WHITENED, _WHITENED_L2, _WHITENED_ROWS = 1024, 3e-7, 4


class SubsampledNewton:
    """Newton's method with exact gradients and a sampled Hessian; a `Solver`."""

    def __init__(self, problem: LinearProblem, options: NewtonOptions | None = None) -> None:
        self.problem = problem
        self.options = options or NewtonOptions()
        self._generator = torch.Generator().manual_seed(self.options.seed)
        self._models: dict[type[NewtonModel], NewtonModel] = {}
        self._last: NewtonModel | None = None

    @property
    def learned(self) -> NewtonOptions:
        """Options that a solver of a like problem may begin with."""
        return self.options if self._last is None else self._last.learned

    def solve(
        self,
        l2: float,
        *,
        tol: float,
        max_passes: float,
        starts: tuple[Point, ...] = (),
        near: float = 0.0,
    ) -> Solution:
        """Minimise P for this `l2`; see `linprobe.core.solvers.base.Solver`."""
        problem, first_read = self.problem, self.problem.num_reads
        minimum = self._start(l2, starts, _SPAN_ACCURACY * tol * min(1.0, l2))
        model = self._begun(l2, minimum.predictions)
        if model is None:
            passes, limit = (problem.num_reads - first_read) / 2, Status.PRECISION_LIMIT
            return Solution(minimum.point, l2, minimum.objective, inf, limit, passes, 0)
        trace = _Trace(tol, near, l2, torch.finfo(problem.dtype).eps)
        goal = tol
        previous: tuple[Direction, ...] = ()
        while True:
            minimum, balanced = self._balanced(l2, minimum, _SPAN_ACCURACY * goal)
            gradient = model.backproject(balanced.residuals) + l2 * minimum.point.weight
            cost, bias_step = balanced.cost, balanced.bias_step
            del balanced  # whose residuals are as large as all logits
            gap = cost + float(gradient.square().sum()) / (2 * l2)
            passes = (problem.num_reads - first_read) / 2
            trace.add(gap, minimum.objective)
            status = trace.status(spent=passes >= max_passes)
            direction = None
            if status is None:
                direction = self._direction(
                    model, minimum, gradient, slow=model.is_weak(trace.ratio)
                )
            if direction is None:
                status = status or Status.PRECISION_LIMIT
                steps, point = len(trace.gaps) - 1, minimum.point
                if bool(bias_step.isfinite().all()):
                    point = replace(point, bias=point.bias + bias_step)
                return Solution(point, l2, minimum.objective, gap, status, passes, steps)
            goal = max(tol, _LOOSE * gap)
            minimum = minimise_in_span(
                *(problem, l2, minimum.point, (direction, *previous)),
                accuracy=0.0,
                # What is left along Newton's direction leaves as large a share of the gap.
                share=_SPAN_ACCURACY * goal / gap,
                known=minimum,
            )
            previous = (direction,)

    def _balanced(self, l2: float, minimum: Minimum, gap: float) -> tuple[Minimum, Balanced]:
        """Balance the predictions at a bias that is near enough to the best for a gap like this."""
        balanced = balance(self.problem, minimum.predictions)
        if balanced.spread > min(_MAX_SPREAD, _SPREAD * (l2 * gap) ** 0.25):
            accuracy, point = min(1.0, l2) * gap, minimum.point
            nearer = minimise_in_span(self.problem, l2, point, accuracy=accuracy, known=minimum)
            minimum = replace(nearer, model_step=minimum.model_step)
            balanced = balance(self.problem, minimum.predictions)
        if balanced.spread > _MAX_SPREAD:  # a class that is saturated: its bias can hardly be told
            residuals = self.problem.residuals(minimum.predictions)
            balanced = Balanced(residuals, torch.zeros_like(balanced.bias_step), 0.0)
        return minimum, balanced

    def _direction(
        self, model: NewtonModel, minimum: Minimum, gradient: Tensor, *, slow: bool
    ) -> Direction | None:
        """The next direction; None: it can't be computed in this arithmetic."""
        # Where the exact curvature along the last direction asked for a full step, the model is
        # good, and the way is long because P is far from quadratic.
        if slow and not _FULL_STEP < minimum.model_step < 1 / _FULL_STEP:
            model.improve()
        p = minimum.predictions
        try:
            return model.direction(p, gradient).with_best_bias(self.problem, p)
        except LinAlgError:
            return None

    def _begun(self, l2: float, predictions: Tensor) -> NewtonModel | None:
        """The model that suits this `l2`; None: it can't be computed in this arithmetic."""
        model = self._model(l2)
        try:
            model.begin(predictions, l2)
        except LinAlgError:
            return None
        return model

    def _model(self, l2: float) -> NewtonModel:
        kind = suited_model(self.problem, l2)
        if kind not in self._models:
            self._models[kind] = kind(self.problem, self.options, self._generator)
        self._last = self._models[kind]
        return self._last

    def _start(self, l2: float, starts: tuple[Point, ...], accuracy: float) -> Minimum:
        problem = self.problem
        if not starts:
            return self._from_zero(l2, accuracy)
        starts = tuple(replace(p, logits=problem.margins(p.logits.clone())) for p in starts)
        base = starts[0]
        span = [Direction(base.weight, base.logits)]
        span += [Direction(p.weight - base.weight, p.logits - base.logits) for p in starts[1:]]
        found = minimise_in_span(problem, l2, base, span, accuracy=accuracy, share=_START_SHARE)
        if found.objective <= log(max(2, problem.num_classes)):  # one logit: two classes
            return found
        # Rows that the start has not seen may cost more than knowing nothing.
        return min(found, self._from_zero(l2, accuracy), key=lambda minimum: minimum.objective)

    def _from_zero(self, l2: float, accuracy: float) -> Minimum:
        bias = self.problem.loss.constant_bias(self.problem.target_mass)
        start = replace(Point.zero(self.problem), bias=bias)
        return minimise_in_span(self.problem, l2, start, accuracy=accuracy)


def suited_model(problem: LinearProblem, l2: float) -> type[WhitenedModel] | type[SketchedModel]:
    """Return the kind of model that is fastest for a problem of this size and this penalty."""
    few_rows = problem.total_samples < _WHITENED_ROWS * problem.num_features
    # Where nothing is copied, each read whitens anew, in float64.
    copied = isinf(least(problem.sums, problem.features.room))
    pays = l2 <= _WHITENED_L2 and copied and not few_rows
    most = _MAX_WHITENED if pays else _ALWAYS_WHITENED
    return WhitenedModel if problem.num_features <= most else SketchedModel


class _Trace:
    """Gaps and values of P on the way, and what they say of it."""

    def __init__(self, tol: float, near: float, l2: float, eps: float) -> None:
        self.gaps: list[float] = []
        self._near = near
        self._hopeless = 2 * l2 * tol < exp(2 * LOWEST_LOGIT)
        self._tol, self._least = tol, max(_SLOW * tol, _NOISE * eps)
        self._values: list[float] = []

    def add(self, gap: float, value: float) -> None:
        self.gaps.append(gap)
        self._values.append(value)

    @property
    def ratio(self) -> float:
        """Of the last two gaps; 0 where there is one."""
        return self.gaps[-1] / self.gaps[-2] if len(self.gaps) > 1 else 0.0

    def status(self, *, spent: bool) -> Status | None:
        """Tell how the solve ends here; None: it goes on."""
        if self.gaps[-1] <= _SAFETY * self._tol:
            return Status.CONVERGED
        if self._distance() < self._near:
            return Status.NEAR
        if spent:
            return Status.MAX_PASSES_REACHED
        return Status.PRECISION_LIMIT if self._is_stalled() else None

    def _distance(self) -> float:
        """Estimate how far P is from its minimum, were its distance to fall as the gap does."""
        if len(self.gaps) < 2 or not self.gaps[-1] < self.gaps[-2]:
            return inf
        ratio, fall = self.gaps[-1] / self.gaps[-2], self._values[-2] - self._values[-1]
        return max(fall, 0.0) * ratio / (1 - ratio)

    def _is_stalled(self) -> bool:
        """Tell whether neither the gap nor P has fallen in the last steps.

        The gap alone may rest for long where the features' variances span many decades. Where l2 is
        so small that the least residuals make a gap above the tolerance, P near zero is all there
        is to reach.
        """
        if self._hopeless and self._values[-1] <= self._tol:
            return True
        recent, before = self.gaps[-_STALLED_STEPS:], self.gaps[:-_STALLED_STEPS]
        if not all(map(isfinite, recent)):
            return True
        if not before or min(recent) <= 0.5 * min(before):
            return False
        return not self._values[-1 - _STALLED_STEPS] - self._values[-1] > self._least
