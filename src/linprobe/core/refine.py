"""Go on from a certified solution to a duality gap far below its tolerance."""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from linprobe.core.certificate import Certificate
from linprobe.core.solve import CertifiedSolution
from linprobe.core.solvers.base import Point
from linprobe.core.solvers.refinement import Refinement

_HALF = 0.5  # of the gap: less progress is none
_NEARER = 1e-3  # of the gap, to be solved for where the optimum is too far for Newton's method


def refine_certified(
    solution: CertifiedSolution,
    refinement: Refinement,
    check: Callable[[Tensor, Tensor], Certificate],
    solve: Callable[[Point, float, float], CertifiedSolution],
    *,
    goal: float,
    least: float,
    max_passes: float,
) -> CertifiedSolution:
    """Reduce the certified gap to a goal, as far as arithmetic and passes allow.

    Full steps of Newton's method are for the neighbourhood of the optimum. Where one does not
    reduce the gap, by a model of the Hessian that is new, the solver is asked to come nearer first.

    Args:
        solution: where to start.
        refinement: of the same problem and penalty.
        check: certifies a weight (K, D) and a bias (K,).
        solve: called as ``solve(start, tol, max_passes)`` with a start in the coordinates of the
            solution's attempt.
        goal: duality gap (nats) that suffices.
        least: gap below which the solver is not asked; infinite: never.
        max_passes: passes over the features for the whole solution.

    Returns:
        The solution of the least gap that was found, with the passes of all.
    """
    while solution.certificate.duality_gap > goal and solution.num_passes < max_passes:
        before = solution.certificate.duality_gap
        solution = _stepped(solution, refinement, check, goal)
        if solution.certificate.duality_gap <= _HALF * before or refinement.renew():
            continue
        if _NEARER * before < least:
            break
        left = max_passes - solution.num_passes
        nearer = solve(solution.own_point, _NEARER * before, left)
        passes = solution.num_passes + nearer.num_passes
        if nearer.certificate.duality_gap < solution.certificate.duality_gap:
            solution = replace(
                solution,
                point=nearer.point,
                own_point=nearer.own_point,
                certificate=nearer.certificate,
            )
        solution = replace(solution, num_passes=passes)
        if not solution.certificate.duality_gap <= _HALF * before:
            break
    return solution


def _stepped(
    solution: CertifiedSolution,
    refinement: Refinement,
    check: Callable[[Tensor, Tensor], Certificate],
    goal: float,
) -> CertifiedSolution:
    """Take one step; keep the point where that has no smaller gap."""
    here = solution.certificate
    point, passes = refinement.step(solution.point, here.gradient, here.best_bias, goal)
    certificate = check(point.weight, point.bias)
    passes += solution.num_passes
    if not certificate.duality_gap < here.duality_gap:
        return replace(solution, num_passes=passes)
    return replace(solution, point=point, certificate=certificate, num_passes=passes)
