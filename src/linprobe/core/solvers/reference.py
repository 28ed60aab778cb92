"""Newton's method with the whole Hessian, in float64: slow, short, and a second opinion.

Boyd & Vandenberghe (2004), "Convex Optimization", Algorithm 9.5, on weight and bias together:
solve for the step with the exact Hessian, halve it until Armijo's condition holds. It shares no
code with `SubsampledNewton`, needs no tuning, and takes ``(K (D + 1))^3`` operations a step.

Deviations. (1) The Hessian is zero along equal biases; a rank-one term there makes it regular
and leaves the step's other components as they are. (2) Its rows and columns are scaled to a unit
diagonal, as classes that no sample is unsure of have almost none. (3) Once differences of P drown
in rounding, full steps are taken for as long as their promised decrease falls.
"""

from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from linprobe.core.problem import SoftmaxRegression
from linprobe.core.solvers.base import NewtonOptions, Point, Solution, Status
from linprobe.runtime.errors import LinprobeError

_MAX_VARIABLES = 6000
_MAX_HALVINGS = 60
_ARMIJO = 1e-4
_ROUNDING = 1e-13  # of P: smaller differences are not looked at
_RIDGE = 1e-15  # of a unit diagonal: rounding must not make the Hessian indefinite


@dataclass(frozen=True)
class _State:
    """An iterate: weight, bias, its logits (with bias), and P."""

    weight: Tensor
    bias: Tensor
    logits: Tensor
    objective: float


class ReferenceNewton:
    """Exact Newton in float64, whatever the features' dtype; a `Solver` for small problems.

    Args:
        problem: of at most 6,000 variables (K (D + 1)).
        options: not needed; handed on as `learned`.

    Raises:
        LinprobeError: More variables than that.
    """

    def __init__(self, problem: SoftmaxRegression, options: NewtonOptions | None = None) -> None:
        self.problem, self.learned = problem, options or NewtonOptions()
        variables = problem.num_classes * (problem.num_features + 1)
        if variables > _MAX_VARIABLES:
            raise LinprobeError(
                f"the reference solver is given {variables:,} variables, n_classes * (n_features "
                f"+ 1); expected at most {_MAX_VARIABLES:,}: use SubsampledNewton, or fewer "
                "features"
            )
        everything = torch.arange(problem.num_samples, device=problem.device)
        rows = problem.rows(everything).double()
        self._exact = SoftmaxRegression(
            rows,
            problem.labels,
            problem.num_classes,
            problem.sample_weight,
        )
        self._extended = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)

    def solve(
        self,
        l2: float,
        *,
        tol: float,
        max_passes: float,
        starts: tuple[Point, ...] = (),
        near: float = 0.0,
    ) -> Solution:
        """Minimise P for this `l2`; see `linprobe.core.solvers.base.Solver`.

        Starts from the one of `starts` and zero that has the least P, and goes on to `tol` whatever
        is `near`. A pass is counted for logits and gradient together, and one for the Hessian.
        """
        state = self._first(l2, starts)
        last = float("inf")
        steps, passes = 0, 1.0
        while True:
            gradient, hessian = self._derivatives(state, l2)
            gap = self._gap(gradient, hessian, l2)
            step = -_solve(hessian, gradient.flatten()).view_as(gradient)
            decrement = -float((gradient * step).sum())
            status = Status.CONVERGED if gap <= tol else None
            if status is None and passes + 2 > max_passes:
                status = Status.MAX_PASSES_REACHED
            if status is None:
                trusted = decrement <= _ROUNDING * max(1.0, abs(state.objective))
                accepted = self._search(state, step, decrement, l2, trusted=trusted)
                stuck = accepted is None or (trusted and not decrement < 0.5 * last)
                if accepted is None or stuck or not isfinite(accepted.objective):
                    status = Status.PRECISION_LIMIT
                else:
                    state, last, steps, passes = accepted, decrement, steps + 1, passes + 2
            if status is not None:
                return self._solution(state, l2, gap, status, passes, steps)

    def _first(self, l2: float, starts: tuple[Point, ...]) -> _State:
        shape = self.problem.num_classes, self.problem.num_features
        zero = self._extended.new_zeros(shape)
        pairs = [(zero, zero.new_zeros(shape[0])), *((p.weight, p.bias) for p in starts)]
        states = [self._at(weight, bias, l2) for weight, bias in pairs]
        return min(states, key=lambda state: state.objective)

    def _at(self, weight: Tensor, bias: Tensor, l2: float) -> _State:
        logits = self._exact.margins(self._exact.logits(weight) + bias[:, None])
        loss = float(self._exact.sample_weight @ logits.logsumexp(0))
        return _State(weight, bias, logits, loss + l2 / 2 * float(weight.square().sum()))

    def _derivatives(self, state: _State, l2: float) -> tuple[Tensor, Tensor]:
        """Gradient (K, D + 1), bias last, and Hessian (K (D + 1), K (D + 1))."""
        p, x = state.logits.softmax(0), self._extended
        residuals = self._exact.residuals(p)
        gradient = self._exact.backproject(residuals) + l2 * state.weight
        gradient = torch.cat([gradient, residuals.sum(1, keepdim=True)], dim=1)
        classes, columns = gradient.shape
        hessian = x.new_zeros(classes, columns, classes, columns)
        for k in range(classes):
            curvature = -p * p[k]
            curvature[k] += p[k]
            weighted = (curvature * self._exact.sample_weight).T[:, :, None] * x[:, None, :]
            hessian[k] = (x.T @ weighted.flatten(1)).view(columns, classes, columns)
        hessian = hessian.view(classes * columns, classes * columns)
        penalty = torch.full_like(gradient, l2)
        penalty[:, -1] = 0.0
        hessian.diagonal().add_(penalty.flatten())
        biases = torch.zeros_like(gradient)
        biases[:, -1] = 1.0
        gauge = (
            biases.flatten() * (_bias_block(hessian, classes).diagonal().mean() / classes) ** 0.5
        )
        return gradient, hessian.addr_(gauge, gauge)

    def _gap(self, gradient: Tensor, hessian: Tensor, l2: float) -> float:
        """The gap as the certificate has it, at the bias that a Newton step leads to."""
        classes, columns = gradient.shape
        rest = gradient[:, -1]
        shift = _solve(_bias_block(hessian, classes), rest)
        cross = hessian.view(classes, columns, classes, columns)[:, :-1, :, -1]
        reduced = gradient[:, :-1] - cross @ shift
        return float(reduced.square().sum()) / (2 * l2) + float(rest @ shift)

    def _search(
        self, state: _State, step: Tensor, decrement: float, l2: float, *, trusted: bool
    ) -> _State | None:
        """The first of the halved steps that Armijo accepts; None if there is none."""
        for halving in range(_MAX_HALVINGS):
            size = 0.5**halving
            candidate = self._at(
                state.weight + size * step[:, :-1], state.bias + size * step[:, -1], l2
            )
            if trusted or candidate.objective <= state.objective - _ARMIJO * size * decrement:
                return candidate
        return None

    def _solution(
        self, state: _State, l2: float, gap: float, status: Status, passes: float, steps: int
    ) -> Solution:
        logits = (state.logits - state.bias[:, None]).to(self.problem.dtype)
        point = Point(state.weight, state.bias - state.bias.mean(), logits)
        return Solution(point, l2, state.objective, gap, status, passes, steps)


def _bias_block(hessian: Tensor, classes: int) -> Tensor:
    """Rows and columns of the biases: (n_classes, n_classes)."""
    columns = len(hessian) // classes
    return hessian.view(classes, columns, classes, columns)[:, -1, :, -1]


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Solution of a positive definite system, scaled to a unit diagonal."""
    scale = matrix.diagonal().clamp_min(torch.finfo(matrix.dtype).tiny).rsqrt()
    unit = scale[:, None] * matrix * scale
    unit.diagonal().add_(_RIDGE)
    factor, failed = torch.linalg.cholesky_ex(unit)
    if int(failed):
        values, vectors = torch.linalg.eigh(unit)
        factors = values.clamp_min(1e-13 * float(values[-1])).reciprocal()
        solution: Tensor = vectors @ (factors * (vectors.T @ (scale * right)))
    else:
        solution = torch.cholesky_solve((scale * right)[:, None], factor)[:, 0]
    return scale * solution
