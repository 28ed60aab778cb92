"""Solve, certify, and where the certificate disagrees with the solver, try harder.

The certificate has the last word: a solver that meets its own tolerance, but not the certificate,
is asked again on the features as they are, for less, and at last in float64.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from linprobe.core.certificate import Certificate, float64_logits
from linprobe.core.features import FeatureMatrix
from linprobe.core.problem import SoftmaxRegression
from linprobe.core.solvers.base import NewtonOptions, Point, Solver, Status
from linprobe.core.solvers.contrast import newton

SolverFactory = Callable[[SoftmaxRegression, NewtonOptions], Solver]
"""Binds a solver to a problem; options say what a solver of a like problem has learned."""

DEFAULT_SOLVER: SolverFactory = newton


@dataclass(frozen=True)
class Attempt:
    """One way to solve a problem.

    Attributes:
        features: makes the rows as the solver reads them, when the attempt's turn comes.
        tol: duality gap (nats) that the solver aims at.
        lift: maps the solver's weight to one of the stated problem, such as from coordinates of
            the row space; None: it is one.
    """

    features: Callable[[], FeatureMatrix]
    tol: float
    lift: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class CertifiedSolution:
    """Where the last attempt ended.

    Attributes:
        point: weight, bias and logits of the stated problem.
        certificate: of weight and bias.
        status: `CONVERGED` where the certificate agrees, else what ended the last attempt.
        num_passes: of all attempts together.
        num_steps: of all attempts together.
        attempt: number of the last attempt, from 0.
        own_point: the point in the last attempt's coordinates.
    """

    point: Point
    certificate: Certificate
    status: Status
    num_passes: float
    num_steps: int
    attempt: int
    own_point: Point


def solve_certified(
    attempts: Sequence[Attempt],
    make_problem: Callable[[FeatureMatrix], SoftmaxRegression],
    check: Callable[[Tensor, Tensor], Certificate],
    l2: float,
    *,
    tol: float,
    max_passes: float,
    start: Point | None = None,
    near: float = 0.0,
    solver: SolverFactory = DEFAULT_SOLVER,
    options: NewtonOptions | None = None,
    on_attempt: Callable[[float, float], None] | None = None,
) -> CertifiedSolution:
    """Solve one problem by the first attempt whose weight and bias the certificate accepts.

    Args:
        attempts: one or more, in the order to be tried in.
        make_problem: adds labels and sample weights to an attempt's features.
        check: certifies a weight (K, D) and a bias (K,) of the stated problem.
        l2: the penalty.
        tol: duality gap (nats) that the certificate must reach.
        max_passes: passes over the features for all attempts together.
        start: where the first attempt starts, in its coordinates; later ones start from the
            weight before them.
        near: estimated distance from the minimum (nats) at which the first attempt may end; its
            status is then `NEAR`, and no other is made.
        solver: makes a solver for each attempt.
        options: what the solvers begin with.
        on_attempt: called after each, with the passes so far and the certificate's gap.
    """
    passes, steps, options = 0.0, 0, options or NewtonOptions()
    for number, attempt in enumerate(attempts):
        features = attempt.features()
        if number and start is not None:
            start = replace(start, logits=float64_logits(features, start.weight))
        starts = () if start is None else (replace(start, logits=start.logits.to(features.dtype)),)
        solution = solver(make_problem(features), options).solve(
            l2,
            tol=attempt.tol,
            max_passes=max_passes - passes,
            starts=starts,
            near=0.0 if number else near,
        )
        del starts  # whose logits would be held while the certificate has its own
        passes, steps = passes + solution.num_passes, steps + solution.num_steps
        start = point = solution.point
        if attempt.lift is not None:
            start = point = replace(point, weight=attempt.lift(point.weight))
        certificate = check(point.weight, point.bias)
        if on_attempt is not None:
            on_attempt(passes, certificate.duality_gap)
        status = solution.status
        if certificate.duality_gap <= tol:
            status = Status.CONVERGED
            break
        if status in (Status.MAX_PASSES_REACHED, Status.NEAR):
            break
        status = Status.PRECISION_LIMIT  # the solver saw less than the certificate
    return CertifiedSolution(point, certificate, status, passes, steps, number, solution.point)
