"""The path of penalties: solved on the fitted rows, judged on the held-out ones."""

from dataclasses import dataclass, replace
from math import inf, isfinite

import torch

from linprobe.core.features import FeatureMatrix
from linprobe.core.problem import SoftmaxRegression
from linprobe.core.solve import SolverFactory
from linprobe.core.solvers.base import NewtonOptions, Point
from linprobe.probes.base import OnSolve, PathPoint, Targets, loss_and_error
from linprobe.probes.config import ProbeConfig

_STOP_RATIO = 1.05  # times the best held-out cross-entropy: the path has turned
_PATIENCE = 2


@dataclass(frozen=True)
class Path:
    """The penalties that were tried, and where the refit may start.

    Attributes:
        points: in the order tried.
        best: the one of least held-out cross-entropy.
        start: its solution, with the logits of all rows, those held out last.
        learned: what the solver of the refit may begin with.
    """

    points: tuple[PathPoint, ...]
    best: PathPoint
    start: Point
    learned: NewtonOptions


def solve_path(
    features: FeatureMatrix,
    targets: Targets,
    config: ProbeConfig,
    solver: SolverFactory,
    on_solve: OnSolve,
) -> Path:
    """Solve for each penalty from large to small, until the held-out cross-entropy has turned.

    Args:
        features: standardised rows, those held out last.
        targets: labels of classes that all occur among the fitted rows, and the rows' weights.
        config: the method's numbers.
        solver: makes the solver.
        on_solve: called after each solve.
    """
    num_fit, labels = targets.num_fit, targets.labels
    held_out = features.rows(num_fit, features.num_rows)
    fit, held = (None, None) if (s := targets.sample_weight) is None else (s[:num_fit], s[num_fit:])
    problem = SoftmaxRegression(
        features.rows(0, num_fit), labels[:num_fit], targets.num_classes, fit
    )
    bound = solver(problem, NewtonOptions(seed=config.seed))
    share = num_fit / len(labels)  # of all rows, which num_passes counts
    path: list[PathPoint] = []
    starts: tuple[Point, ...] = ()
    for l2 in config.l2_path:
        solution = bound.solve(l2, tol=config.tol, max_passes=config.max_passes, starts=starts)
        point = solution.point
        starts = (point, *starts[:1])
        logits = held_out.logits(point.weight)
        cross_entropy, error_rate = loss_and_error(
            logits.double() + point.bias[:, None], labels[num_fit:], held
        )
        if not isfinite(cross_entropy):
            cross_entropy = inf  # logits beyond the dtype
        passes = share * solution.num_passes + (1 - share) / 2
        path.append(
            PathPoint(l2, cross_entropy, error_rate, solution.duality_gap, passes, solution.status)
        )
        on_solve("path", l2, passes, solution.duality_gap)
        best = min(path, key=lambda p: p.validation_cross_entropy)
        if best is path[-1]:
            start = replace(point, logits=torch.cat([point.logits, logits], dim=1))
            learned = bound.learned
        if _turned(path):
            break
    return Path(tuple(path), best, start, learned)


def _turned(path: list[PathPoint]) -> bool:
    """Tell whether held-out cross-entropy has clearly passed its minimum."""
    losses = [p.validation_cross_entropy for p in path]
    since_best = len(losses) - 1 - losses.index(min(losses))
    return losses[-1] > _STOP_RATIO * min(losses) or since_best >= _PATIENCE
