"""Two classes solved as one row: half of the arithmetic.

At the optimum of two classes ``W_0 = -W_1``, since equal parts change no prediction and cost
penalty. With the contrast ``w = W_1 - W_0`` and ``b_1 - b_0``, ``||W||^2 = ||w||^2 / 2``, so
P(W, b) is the problem of one logit with half the penalty: same values, gradients
``grad_W = (-g, g)``, and so the same duality gap, ``||grad_W||^2 / (2 l2) = ||g||^2 / l2``.
"""

from dataclasses import replace

import torch
from torch import Tensor

from linprobe.core.losses import Contrast
from linprobe.core.problem import LinearProblem, SoftmaxRegression
from linprobe.core.row_space import RowSpace
from linprobe.core.solvers.base import NewtonOptions, Point, Solution, Solver
from linprobe.core.solvers.newton import SubsampledNewton
from linprobe.core.solvers.refinement import Refinement


class ContrastNewton:
    """`SubsampledNewton` on the contrast of two classes; a `Solver`.

    Args:
        problem: of two classes.
        options: tuning.
    """

    def __init__(self, problem: SoftmaxRegression, options: NewtonOptions | None = None) -> None:
        self.problem: LinearProblem = problem
        self._inner = SubsampledNewton(_contrast_problem(problem), options)

    @property
    def learned(self) -> NewtonOptions:
        """Options that a solver of a like problem may begin with."""
        return self._inner.learned

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
        solution = self._inner.solve(
            l2 / 2,
            tol=tol,
            max_passes=max_passes,
            starts=tuple(map(_contrast, starts)),
            near=near,
        )
        return replace(solution, l2=l2, point=_classes(solution.point))


class ContrastRefinement:
    """`Refinement` on the contrast of two classes.

    Args:
        problem: of two classes.
        l2: its penalty.
        options: as `Refinement` takes them.
        space: as `Refinement` takes it.
    """

    def __init__(
        self,
        problem: SoftmaxRegression,
        l2: float,
        options: NewtonOptions,
        space: RowSpace | None = None,
    ) -> None:
        self._inner = Refinement(_contrast_problem(problem), l2 / 2, options, space)

    def renew(self) -> bool:
        """See `Refinement`."""
        return self._inner.renew()

    def step(
        self, point: Point, gradient: Tensor, best_bias: Tensor, goal: float
    ) -> tuple[Point, float]:
        """See `Refinement`."""
        own, bias = (gradient[1:] - gradient[:1]) / 2, best_bias[1:] - best_bias[:1]
        found, passes = self._inner.step(_contrast(point), own, bias, goal)
        return _classes(found), passes


def newton(problem: SoftmaxRegression, options: NewtonOptions | None = None) -> Solver:
    """Bind the solver that suits the number of classes."""
    kind = ContrastNewton if problem.num_classes == 2 else SubsampledNewton
    return kind(problem, options)


def refinement(
    problem: SoftmaxRegression, l2: float, options: NewtonOptions, space: RowSpace | None = None
) -> Refinement | ContrastRefinement:
    """Make the refinement that suits the number of classes; see `Refinement`."""
    kind = ContrastRefinement if problem.num_classes == 2 else Refinement
    return kind(problem, l2, options, space)


def _contrast_problem(problem: SoftmaxRegression) -> LinearProblem:
    return LinearProblem(
        problem.features, Contrast(problem.labels), problem.sample_weight, problem.sums
    )


def _contrast(point: Point) -> Point:
    weight, bias, logits = (x[1:] - x[:1] for x in (point.weight, point.bias, point.logits))
    return Point(weight, bias, logits)


def _classes(point: Point) -> Point:
    halves = (x / 2 for x in (point.weight, point.bias, point.logits))
    return Point(*(torch.cat([-half, half]) for half in halves))
