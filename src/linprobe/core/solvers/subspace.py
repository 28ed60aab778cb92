"""Exact minimisation over a few directions and the bias, on cached logits: no feature is read.

Serves as line search (one direction), as warm start (the span of earlier solutions) and as the
solve for the bias alone (no direction).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from linprobe.core.bias_system import FormedBiasSystem, solve_psd
from linprobe.core.linalg import float64_sum
from linprobe.core.parts import Part
from linprobe.core.problem import LinearProblem, weighted_sum
from linprobe.core.solvers.base import Point

_MAX_NEWTON_STEPS = 40
_MAX_HALVINGS = 20
# A full step of Newton's method that lowers P by (1 + r) times what its quadratic model says leaves
# a decrement of 9/4 r^2 times its own, in one dimension and to third order; four times that is
# expected here, so that P's value can stand for a gradient that need not be computed.
_LEFT_OVER = 9.0
# Full Newton steps are taken without looking at P once they promise less than this (nats): such
# differences of P drown in rounding (in float32 of logits of a few dozen), and the step is far
# below what bends the loss.
_TRUSTED_DECREMENT = {torch.float32: 5e-6, torch.float64: 1e-7}


@dataclass(frozen=True)
class Direction:
    """A change of the weight, and of the bias with it.

    Attributes:
        weight: (n_classes, n_features) float64.
        logits: (n_classes, n_samples), `LinearProblem.margins` of weight and bias.
        bias: (n_classes,) float64; None: zero.
    """

    weight: Tensor
    logits: Tensor
    bias: Tensor | None = None

    def with_best_bias(self, problem: LinearProblem, predictions: Tensor) -> "Direction":
        """Let the bias follow to first order, from zero.

        The bias is free in any case. But a change of the weight that is mostly one of the bias has
        nearly all of its curvature in common with it, and little would be left but rounding. What
        is equal for all classes has no curvature but the penalty's: where that is tiny, it is
        rounding over `l2`, and taken out.
        """
        slope = torch.zeros(len(predictions), dtype=torch.float64, device=predictions.device)
        for part in problem.parts:
            curved = part.curved(predictions[:, part.rows], self.logits[:, part.rows])
            slope += float64_sum(curved)
        slope = problem.sums.total(slope)
        bias = problem.sums.agreed(-problem.bias_system(predictions).solve(slope[None])[0])
        weight = problem.gauged(self.weight)
        return Direction(weight, problem.shifted(self.logits, bias), bias)


@dataclass(frozen=True)
class Minimum:
    """Where `minimise_in_span` ended.

    Attributes:
        point: the minimiser.
        objective: P there (nats).
        predictions: (n_classes, n_samples) there.
        model_step: how far along the first direction P's quadratic model at the base has its
            minimum: 1 for an exact Newton direction, NaN without directions.
    """

    point: Point
    objective: float
    predictions: Tensor
    model_step: float = float("nan")


class _Span:
    """P as a function of the coordinates (t_1 .. t_j, b_1 .. b_K).

    Its penalty is a quadratic form of the coordinates, computed once; all logits are `margins`, so
    that the cross-entropy is their log-sum-exp. A Newton step is left with one exponential and a
    few products over (n_classes, n_samples).
    """

    def __init__(
        self, problem: LinearProblem, l2: float, base: Point, directions: Sequence[Direction]
    ) -> None:
        self.base, self.directions, self.l2 = base, directions, l2
        self.problem = problem
        weights = [base.weight, *(d.weight for d in directions)]
        self.gram = torch.stack([torch.stack([(a * b).sum() for b in weights]) for a in weights])
        none = torch.zeros_like(base.bias)
        biases = [none if d.bias is None else d.bias for d in directions]
        self.biases = torch.stack(biases) if biases else none[None][:0]

    def _full(self, x: Tensor) -> Tensor:
        """Coordinates with the base's own (one) before them: (1 + j,)."""
        return torch.cat([x.new_ones(1), x[: len(self.directions)]])

    def point(self, x: Tensor) -> Point:
        """The weight, bias and logits at x."""
        weight, added = self.base.weight, x[: len(self.directions)] @ self.biases
        for t, d in zip(x.tolist(), self.directions, strict=False):
            weight = weight + t * d.weight
        logits = torch.empty_like(self.base.logits) if self.directions else self.base.logits
        for part in self.problem.parts if self.directions else ():
            self._margins(x, -added, part, logits)
        bias = x[len(self.directions) :] + added
        return Point(weight, self.problem.gauged(bias), logits)

    def evaluate(self, x: Tensor) -> tuple[float, Tensor]:
        """P and the predictions (n_classes, n_samples) at x."""
        t, value = self._full(x), x.new_zeros(())
        predictions = torch.empty_like(self.base.logits)
        for part in self.problem.parts:
            value += part.evaluate(self._margins(x, x[len(self.directions) :], part, predictions))
        penalty = 0.5 * self.l2 * float(t @ self.gram @ t)
        return float(self.problem.sums.total(value)) + penalty, predictions

    def _margins(self, x: Tensor, bias: Tensor, part: Part, out: Tensor) -> Tensor:
        """Fill a part of `out` with the margins at x of the weight, and of a bias (K,)."""
        here, bias = out[:, part.rows], bias.to(out.dtype)
        torch.add(self.base.logits[:, part.rows], part.loss.bias_margins(bias), out=here)
        for t, d in zip(x.tolist(), self.directions, strict=False):
            here.add_(d.logits[:, part.rows], alpha=t)
        return here

    def newton_step(self, x: Tensor, predictions: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient and Newton's step at x, (j + K,) float64."""
        j, problem = len(self.directions), self.problem
        along, mixed, curvature = self._derivatives(x, predictions)
        system = problem.bias_system(predictions)
        if isinstance(system, FormedBiasSystem):
            gradient = torch.cat([along, problem.bias_gradient(predictions)])
            hessian = torch.cat(
                [torch.cat([curvature, mixed], 1), torch.cat([mixed.T, system.hessian], 1)]
            )
            return gradient, -solve_psd(hessian, gradient[:, None])[:, 0]
        slope, best = problem.bias_step(predictions)
        gradient, solved = torch.cat([along, slope]), system.solve(mixed) if j else mixed
        along = along - mixed @ best
        t = solve_psd(curvature - mixed @ solved.T, along[:, None])[:, 0]
        return gradient, -torch.cat([t, best - t @ solved])

    def _derivatives(self, x: Tensor, predictions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Slopes (j,), and curvature with the bias (j, K) and with each other (j, j), float64."""
        j, problem = len(self.directions), self.problem
        slopes = self.l2 * (self.gram @ self._full(x))[1:]
        mixed, curvature = slopes.new_zeros(j, len(predictions)), self.l2 * self.gram[1:, 1:]
        if not j:
            return slopes, mixed, curvature
        own, seen, within = (torch.zeros_like(x) for x in (slopes, mixed, curvature))
        for part in problem.parts:
            p = predictions[:, part.rows]
            weighted = part.weighted_spread(p)
            # Centred before they are squared: most samples are sure of their class, and there the
            # difference of mean square and squared mean would be all rounding.
            centred: list[Tensor] = []
            for a, direction in enumerate(self.directions):
                slope, middle = part.loss.along(p, direction.logits[:, part.rows])
                own[a] += weighted_sum(slope, part.sample_weight)
                centred.append(middle)
                curved = middle * weighted
                seen[a] += curved.sum(1)
                for c, other in enumerate(centred):
                    within[a, c] += torch.dot(curved.view(-1), other.view(-1))
        packed = problem.sums.total(torch.cat([own[:, None], seen, within], 1))
        own, seen, within = packed[:, 0], packed[:, 1:-j], packed[:, -j:]
        return slopes + own, seen, curvature + within.tril() + within.tril(-1).T


def minimise_in_span(
    problem: LinearProblem,
    l2: float,
    base: Point,
    directions: Sequence[Direction] = (),
    *,
    accuracy: float,
    share: float = 0.0,
    known: Minimum | None = None,
) -> Minimum:
    """Minimise P over ``base.weight + sum_a t_a directions[a].weight`` and the bias.

    Damped Newton on j + K variables. Near the minimum, where differences of P drown in rounding,
    the full Newton step is taken as long as the decrement falls.

    Args:
        problem: gives loss and residuals on logits.
        l2: the penalty.
        base: the origin; its logits are `LinearProblem.margins`.
        directions: j of them; none means that only the bias is solved for.
        accuracy: nats above the minimum at which to stop.
        share: stop also when this share is left of what the quadratic model at the base promised.
        known: what P is at the base, for this `l2`, if that has been computed.
    """
    span = _Span(problem, l2, base, directions)
    x = torch.cat([base.bias.new_zeros(len(directions)), base.bias])
    value, predictions = (known.objective, known.predictions) if known else span.evaluate(x)
    last_decrement, model_step = float("inf"), float("nan")
    farthest = torch.finfo(base.logits.dtype).max ** 0.5  # beyond, products overflow
    for iteration in range(_MAX_NEWTON_STEPS):
        gradient, step = problem.sums.agreed(torch.stack(span.newton_step(x, predictions)))
        if iteration == 0 and directions:
            model_step = float(step[0])
        decrement = -float(gradient @ step)  # twice the expected decrease
        trusted = decrement < _TRUSTED_DECREMENT[base.logits.dtype]
        if iteration == 0:
            accuracy = max(accuracy, share * decrement / 2)
        if not decrement > 2 * accuracy or (trusted and decrement >= last_decrement):
            break
        if not float((x + step).abs().max()) < farthest:
            break
        for halving in range(_MAX_HALVINGS):
            size = 0.5**halving
            new, candidate = span.evaluate(x + size * step)
            if (trusted and isfinite(new)) or new <= value - 1e-4 * size * decrement:
                break
        else:
            break  # no decrease can be computed: this is the minimum that the dtype can tell
        beyond = abs(2 * (value - new) / decrement - 1)
        x, value, predictions = x + size * step, new, candidate
        pace = decrement / last_decrement if last_decrement < float("inf") else 1.0
        if size == 1.0 and min(pace, _LEFT_OVER * beyond**2) * decrement <= 2 * accuracy:
            break  # the next decrement need not be computed
        last_decrement = decrement
    return Minimum(span.point(x), value, predictions, model_step)


@dataclass(frozen=True)
class Balanced:
    """Residuals of predictions that were moved until each class is predicted as often as it occurs.

    Attributes:
        residuals: (n_classes, n_samples); each row sums to zero.
        bias_step: (n_classes,) float64, Newton's step towards the best bias.
        cost: nats that moving them adds to the duality gap.
    """

    residuals: Tensor
    bias_step: Tensor
    cost: float

    @property
    def spread(self) -> float:
        """Range of the bias step and zero; up to 1, all predictions stay distributions."""
        return float(self.bias_step.max().clamp_min(0) - self.bias_step.min().clamp_max(0))


def balance(problem: LinearProblem, predictions: Tensor) -> Balanced:
    """Move predictions (n_classes, n_samples) by the bias's Newton step, to first order.

    ``||grad||^2 / (2 l2)`` is a gap only where ``sum_i r_i = 0``, as at the best bias. With the
    Newton step d towards it, the predictions ``q_ik = p_ik (1 + d_k - sum_j p_ij d_j)`` balance
    exactly and cost ``sum_i s_i KL(q_i || p_i) <= sum_i s_i chi^2(q_i, p_i) = d^T H_b d``: a dual
    point as good as the best bias's, from any bias that is near.
    """
    gradient, solved = problem.bias_step(predictions)
    step = problem.gauged(-problem.sums.agreed(solved))
    first, residuals = step.to(predictions.dtype), torch.empty_like(predictions)
    for part in problem.parts:
        moved = part.loss.moved(predictions[:, part.rows], first)
        residuals[:, part.rows] = part.residuals(moved)
    return Balanced(residuals, step, -float(gradient @ step))
