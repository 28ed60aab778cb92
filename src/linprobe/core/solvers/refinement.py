"""Newton steps past the precision of the features: float64 gradients, steps in float32.

From some gap on a gradient that is summed in float32 is all rounding. Here it is given in float64,
by the certificate, at a weight kept in float64, and only the step d is computed in the features'
precision: it solves ``H d = -G`` with the Hessian H of all rows (its predictions in float32), by
conjugate gradients that a `NewtonModel` of sampled rows preconditions. Every number of that shrinks
with the gradient, so rounding leaves a share of the gradient, where it would otherwise leave a
constant; a step cuts the duality gap by five orders of magnitude or more, and the next one goes on
from there. This is iterative refinement (Moler, Iterative refinement in floating point, 1967) of
Newton's method. No copy of the features in float64 is made: the certificate widens them by blocks.
"""

from dataclasses import replace
from math import isinf

import torch
from torch import Tensor

from linprobe.core.linalg import LinAlgError
from linprobe.core.problem import LinearProblem
from linprobe.core.row_space import RowSpace
from linprobe.core.solvers.base import NewtonOptions, Point
from linprobe.core.solvers.direct import DirectModel
from linprobe.core.solvers.model import NewtonModel
from linprobe.core.solvers.newton import suited_model
from linprobe.core.solvers.subspace import Direction
from linprobe.core.sums import least

_MAX_DIRECTIONS = 12
# The model is a preconditioner here, which all rows follow: a larger sample takes longer and does
# not save as much. A factorised one serves for many steps.
_MOST_ROWS, _PAIR_ROWS = 8000, 32
_WEAK_PROGRESS = 0.8  # ratio of successive gaps above which the model is made better
# Up to these shares of the gap, and of its square, a step solves its linear equations; what is left
# is mostly the third derivative's.
_LEFT, _LEFT_OF_SQUARE = 1e-3, 100.0


class Refinement:
    """Takes points near the optimum nearer, whatever gap the features' precision allows.

    Args:
        problem: of float32 or float64 features: those of the stated problem, or `space`'s
            coordinates of them.
        l2: the penalty.
        options: what a solver of the problem has learned.
        space: where the weight of the stated problem is lifted from; None: the problem is that.
    """

    def __init__(
        self,
        problem: LinearProblem,
        l2: float,
        options: NewtonOptions,
        space: RowSpace | None = None,
    ) -> None:
        self._problem, self._l2, self._space = problem, l2, space
        self._has_room = isinf(least(problem.sums, problem.features.room))
        generator = torch.Generator().manual_seed(options.seed)
        kind = DirectModel if DirectModel.suits(problem) else suited_model(problem, l2)
        options = replace(options, most_rows=_MOST_ROWS, pair_rows=_PAIR_ROWS)
        self._model: NewtonModel = kind(problem, options, generator)
        self._model_at: Tensor | None = None  # its predictions
        self._is_new = True

    def renew(self) -> bool:
        """Make the model anew at the next step; tell whether that can help.

        It can't where the model was new at the last step already.
        """
        was_new, self._model_at = self._is_new, None
        return not was_new

    def step(
        self, point: Point, gradient: Tensor, best_bias: Tensor, goal: float
    ) -> tuple[Point, float]:
        """Take one step of Newton's method from the best bias of a weight.

        Args:
            point: in the coordinates of the stated problem; its logits are those of `problem`.
            gradient: of P over the weight at the best bias, (n_classes, n_features) float64.
            best_bias: (n_classes,) float64.
            goal: duality gap (nats) that suffices.

        Returns:
            The new point and the passes over the features that it took; the point as it was where
            the model of the Hessian can't be computed.
        """
        problem, first = self._problem, self._problem.num_reads
        point = replace(point, bias=best_bias, logits=point.logits.to(problem.dtype))
        margins = problem.shifted(problem.margins(point.logits.clone()), best_bias)
        _, predictions = problem.evaluate(margins)
        try:
            self._is_new = self._model_at is None
            if self._model_at is None:
                self._model.begin(predictions, self._l2)
                self._model_at = predictions
            inside = gradient if self._space is None else self._space.project(gradient)
            step = self._solve(predictions, inside, goal, self._model_at)
        except LinAlgError:
            step = None
        passes = (problem.num_reads - first) / 2
        if step is None or step.bias is None:
            return point, passes
        weight = step.weight
        if self._space is not None:
            # What rounding leaves outside the span has no curvature but the penalty's.
            outside = gradient - self._space.lift(inside)
            weight = self._space.lift(weight) - outside / self._l2
        logits = problem.shifted(step.logits.add_(point.logits), -step.bias)
        return Point(point.weight + weight, problem.gauged(best_bias + step.bias), logits), passes

    def _solve(
        self, predictions: Tensor, gradient: Tensor, goal: float, model_at: Tensor
    ) -> Direction | None:
        """Solve for Newton's direction by conjugate gradients, each conjugate to all before.

        Their preconditioner is the model at the first point, near enough and made only once.
        """
        residual = gradient
        gap = self._gap(gradient)
        enough = max(goal, min(_LEFT * gap, _LEFT_OF_SQUARE * gap * gap))
        total: Direction | None = None
        past: list[tuple[Direction, Tensor]] = []
        none = predictions.new_empty(len(predictions), 0)
        while self._gap(residual) > enough and len(past) < _MAX_DIRECTIONS:
            direction = self._next_direction(residual, predictions, model_at, past)
            product = self._hessian_product(predictions, direction)
            curvature = float((direction.weight * product).sum())
            if not curvature > 0:
                break
            size = -float((residual * direction.weight).sum()) / curvature
            kept = direction if self._has_room else replace(direction, logits=none)
            past.append((kept, product))
            before, residual = self._gap(residual), residual + size * product
            if self._gap(residual) > _WEAK_PROGRESS * before:
                self._model.improve()
            total = _accumulated(total, size, direction)
        if len(past) == _MAX_DIRECTIONS:
            self.renew()
        return total

    def _next_direction(
        self,
        residual: Tensor,
        predictions: Tensor,
        model_at: Tensor,
        past: list[tuple[Direction, Tensor]],
    ) -> Direction:
        """Give a direction that is conjugate to those before, and let the bias follow.

        Logits of all directions are many times those of the features' own: where there is no room
        for them, they are read once the weight is conjugate.
        """
        problem, late = self._problem, bool(past) and not self._has_room
        direction = self._model.direction(model_at, residual, with_logits=not late)
        if not late:
            direction = direction.with_best_bias(problem, predictions)
        for other, product in past:
            share = -(direction.weight * product).sum() / (other.weight * product).sum()
            if late:
                direction = replace(direction, weight=direction.weight + share * other.weight)
            else:
                direction = _combined(direction, float(share), other)
        if late:
            direction = Direction(direction.weight, problem.logits(direction.weight))
            direction = direction.with_best_bias(problem, predictions)
        return direction

    def _hessian_product(self, predictions: Tensor, direction: Direction) -> Tensor:
        curved = self._problem.curved(predictions, direction.logits)
        return self._model.backproject(curved) + self._l2 * direction.weight

    def _gap(self, gradient: Tensor) -> float:
        return float(gradient.square().sum()) / (2 * self._l2)


def _accumulated(total: Direction | None, factor: float, direction: Direction) -> Direction:
    """Add ``factor * direction`` to a total, in place; None: zero."""
    assert direction.bias is not None
    if total is None:
        parts = (direction.weight, direction.logits, direction.bias)
        return Direction(*(factor * part for part in parts))
    assert total.bias is not None
    total.weight.add_(direction.weight, alpha=factor)
    total.logits.add_(direction.logits, alpha=factor)
    total.bias.add_(direction.bias, alpha=factor)
    return total


def _combined(first: Direction, factor: float, second: Direction) -> Direction:
    """Compute ``first + factor * second`` of directions that have biases."""
    assert first.bias is not None and second.bias is not None
    return Direction(
        first.weight + factor * second.weight,
        first.logits + factor * second.logits,
        first.bias + factor * second.bias,
    )
