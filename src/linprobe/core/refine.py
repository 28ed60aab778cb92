"""Go on from a certified solution to a duality gap far below its tolerance."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from torch import Tensor

from linprobe.core.certificate import Certificate
from linprobe.core.solve import CertifiedSolution
from linprobe.core.solvers.base import Point

_HALF = 0.5  # of the gap: less progress is none
_MUCH = 0.1  # of the gap: a step that leaves more is a weak one
_ENOUGH = 0.1  # of the decrease of P that a step promises, if it counts as progress
_RESOLVED = 1e-13  # nats: promises below that drown in the rounding of P
_MAX_HALVINGS = 5
_PATIENCE = 3  # steps that lower P alone, one after the other
_NEARER = 1e-3  # of the gap, to be solved for where the optimum is too far for Newton's method


class Refining(Protocol):
    """Newton's method past the precision of the features, as `Refinement` is."""

    def renew(self) -> bool:
        """See `linprobe.core.solvers.refinement.Refinement`."""
        ...

    def step(
        self, point: Point, gradient: Tensor, best_bias: Tensor, goal: float
    ) -> tuple[Point, float]:
        """See `linprobe.core.solvers.refinement.Refinement`."""
        ...


def refine_certified(
    solution: CertifiedSolution,
    refinement: Refining,
    check: Callable[[Tensor, Tensor], Certificate],
    solve: Callable[[Point, float, float], CertifiedSolution],
    *,
    goal: float,
    least: float,
    max_passes: float,
    demanding: bool = False,
) -> CertifiedSolution:
    """Reduce the certified gap to a goal, as far as arithmetic and passes allow.

    Far from the optimum a step of Newton's method may raise the gap, which squares the gradient in
    all directions alike, although it takes most of what is to be gained: there P tells whether it
    is a good one, and how much of it. Where neither falls, by a model of the Hessian that is new,
    the solver is asked to come nearer first.

    Args:
        solution: where to start.
        refinement: of the same problem and penalty.
        check: certifies a weight (K, D) and a bias (K,).
        solve: called as ``solve(start, tol, max_passes)`` with a start in the coordinates of the
            solution's attempt.
        goal: duality gap (nats) that suffices.
        least: gap below which the solver is not asked; infinite: never.
        max_passes: passes over the features for the whole solution.
        demanding: end at a step that leaves much of the gap, because it may be for lack of
            precision, and there is more of it to be had.

    Returns:
        The solution of the least gap that was found, with the passes of all.
    """
    best, waited = solution, 0
    while best.certificate.duality_gap > goal and solution.num_passes < max_passes:
        before = best.certificate.duality_gap
        solution, falls = _stepped(solution, refinement, check, goal)
        best = _nearest(best, solution)
        if demanding and solution.certificate.duality_gap > max(goal, _MUCH * before):
            break
        waited = 0 if best.certificate.duality_gap <= _HALF * before else waited + 1
        if waited == 0 or (falls and waited <= _PATIENCE) or refinement.renew():
            continue
        before = best.certificate.duality_gap
        if _NEARER * before < least:
            break
        left = max_passes - solution.num_passes
        nearer = solve(best.own_point, _NEARER * before, left)
        passes = solution.num_passes + nearer.num_passes
        found = replace(nearer, attempt=best.attempt, status=best.status)
        best = solution = replace(_nearest(best, found), num_passes=passes)
        if not best.certificate.duality_gap <= _HALF * before:
            break
        waited = 0
    return best if best is solution else replace(best, num_passes=solution.num_passes)


def _nearest(*solutions: CertifiedSolution) -> CertifiedSolution:
    return min(solutions, key=lambda solution: solution.certificate.duality_gap)


def _stepped(
    solution: CertifiedSolution,
    refinement: Refining,
    check: Callable[[Tensor, Tensor], Certificate],
    goal: float,
) -> tuple[CertifiedSolution, bool]:
    """Take one step, or as much of it as P allows, and tell whether P falls as it promises.

    The point stays where it is if neither the gap nor P falls.
    """
    here = solution.certificate
    point, passes = refinement.step(solution.point, here.gradient, here.best_bias, goal)
    solution = replace(solution, num_passes=solution.num_passes + passes)
    start = replace(solution.point, bias=here.best_bias)
    promised = -float((here.gradient * (point.weight - start.weight)).sum()) / 2
    for _ in range(1 + _MAX_HALVINGS):
        certificate = check(point.weight, point.bias)
        falls = here.objective - certificate.objective > _ENOUGH * promised > _RESOLVED
        if falls or certificate.duality_gap < here.duality_gap:
            return replace(solution, point=point, certificate=certificate), falls
        if not promised > _RESOLVED:
            break
        point, promised = _between(start, point), promised / 2
    return solution, False


def _between(start: Point, end: Point) -> Point:
    return Point(
        (start.weight + end.weight) / 2,
        (start.bias + end.bias) / 2,
        (start.logits + end.logits.to(start.logits.dtype)) / 2,
    )
