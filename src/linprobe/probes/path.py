"""The path of penalties: solved on the fitted rows, judged on the held-out ones.

Their score is the held-out cross-entropy or error rate, as `ProbeConfig.choose_by` has it. The
default path goes on beyond its ends, a decade at a time, while the score still falls by more than
`NUM_ERRORS` standard errors of its paired difference over the held-out rows, and by more than
solves resolve. Penalties are judged, not certified: a solve ends where P is estimated
to be `NEAR` its minimum, which float32 can tell at penalties whose gap ``||g||^2 / (2 l2)`` is
all rounding of the gradient g. Where it can't, the path goes on in float64.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, isfinite, isinf, log10

import torch
from torch import Tensor

from linprobe.core.certificate import float64_logits
from linprobe.core.features import FeatureMatrix
from linprobe.core.problem import SoftmaxRegression
from linprobe.core.solve import SolverFactory
from linprobe.core.solvers.base import NewtonOptions, Point, Status
from linprobe.core.sums import least
from linprobe.probes.base import OnSolve, PathPoint, Targets
from linprobe.probes.choice import mean_and_error, sample_scores, score
from linprobe.probes.config import DEFAULT_L2_PATH, Criterion, ProbeConfig
from linprobe.probes.scores import loss_and_error

NUM_ERRORS = 2.0
"""Standard errors that a fall of the score has to exceed."""

NEAR = 0.03
"""Distance from the minimum, as estimated, at which a penalty is judged: a share of `tol`."""

EXACT_L2 = 1e-13
"""Least penalty to which the path of a probe that is to be exact goes on by itself.

Below, weights become so large that the rounding of logits in float64 leaves samples undecided.
"""

_LEAST_FALL = 1e-4  # of the score; where nothing is left to gain, a fall may be small but sure
_STOP_RATIO = 1.05  # times the best score: the path has turned
_PATIENCE = 2
# Below, float32 takes several times the steps, and ends 1e-4 and more above the minimum.
_FLOAT32_L2 = 3e-15

Widen = Callable[[], FeatureMatrix]
"""Makes a copy of the features in float64."""


@dataclass(frozen=True)
class Path:
    """The penalties that were tried, and where the refit may start.

    Attributes:
        points: from large to small.
        best: the one of the best score.
        at_edge: the path ended at it, though the score still fell by more than its noise.
        features: all rows, as they were read when `best` was solved.
        start: its solution, with the logits of all rows, those held out last; without, where rows
            are read from a disk.
        learned: what the solver of the refit may begin with.
        num_passes: over all rows, of all solves: also of those that are not among the points,
            because a part of the rows misled, or all rows were solved for the same penalty.
    """

    points: tuple[PathPoint, ...]
    best: PathPoint
    at_edge: bool
    features: FeatureMatrix
    start: Point
    learned: NewtonOptions
    num_passes: float

    def shortened(self, by: Criterion) -> "Path":
        """Choose the next larger penalty, because the best can't be certified on all rows."""
        larger = self.points[self.points.index(self.best) - 1]
        judged = [p for p in self.points if isfinite(p.standard_error) and p.num_rows is None]
        lost = score(larger, by)[0] - min(score(p, by)[0] for p in judged)
        return replace(self, best=larger, at_edge=lost > NUM_ERRORS * larger.standard_error)


def solve_path(
    features: FeatureMatrix,
    targets: Targets,
    config: ProbeConfig,
    solver: SolverFactory,
    on_solve: OnSolve,
    widen: Widen | None = None,
    of_part: Path | None = None,
) -> Path:
    """Solve for each penalty from large to small, until the score has turned.

    Args:
        features: standardised rows, those held out last.
        targets: labels of classes that all occur among the fitted rows, and the rows' weights.
        config: the method's numbers.
        solver: makes the solver.
        on_solve: called after each solve.
        widen: of float32 features, where they don't suffice; None: the path ends there.
        of_part: what a part of the rows has chosen: only this penalty is solved, and smaller ones
            while they are better; where none is, larger ones.
    """
    walk = _Walk(features, targets, config, solver, on_solve)
    if of_part is not None and not walk.solve_around(of_part, widen):
        spent, of_part = walk.num_passes, None
        walk = _Walk(features, targets, config, solver, on_solve)
        walk.num_passes = spent
    for l2 in config.l2_path if of_part is None else ():
        walk.solve_smaller(l2, widen)
        if walk.has_turned():
            break
    if config.extends_path:
        walk.extend_up()
        walk.extend_down(widen)
    return walk.path()


class _Walk:
    """Solves one penalty after the other, and remembers the best."""

    def __init__(
        self,
        features: FeatureMatrix,
        targets: Targets,
        config: ProbeConfig,
        solver: SolverFactory,
        on_solve: OnSolve,
    ) -> None:
        self._targets, self._config, self._on_solve = targets, config, on_solve
        self._solver, self._options = solver, NewtonOptions(seed=config.seed)
        self._points: list[PathPoint] = []  # from large to small
        self._scores: list[Tensor] = []  # of the held-out rows, at each point
        self._unsolved: list[PathPoint] = []
        self._of_part: tuple[PathPoint, ...] = ()
        self._starts: tuple[Point, ...] = ()
        self.num_passes = 0.0
        end, count = targets.num_fit, len(targets.labels)
        num_fit, num_rows = targets.sums.total(torch.tensor([end, count])).tolist()
        self._share_fitted = num_fit / num_rows
        self._read(features)

    def _read(self, features: FeatureMatrix) -> None:
        """Read these features from now on."""
        targets, end = self._targets, self._targets.num_fit
        self._features = features
        # Each start holds one number for each class and row.
        self._num_starts = 2 if isinf(least(targets.sums, features.room)) else 1
        self._fitted, self._held_out = features.rows(0, end), features.rows(end, features.num_rows)
        weight = targets.sample_weight
        self._weight = None if weight is None else weight[end:]
        problem = SoftmaxRegression(
            *(self._fitted, targets.labels[:end], targets.num_classes),
            *(None if weight is None else weight[:end], targets.sums),
        )
        self._bound = self._solver(problem, self._options)
        self._starts = tuple(replace(p, logits=self._fitted.logits(p.weight)) for p in self._starts)

    def solve(self, l2: float, *, above: bool = False, extra: bool = False) -> bool:
        """Solve for the next penalty, and tell whether it is the best so far.

        Args:
            l2: below all before it.
            above: it is above them instead.
            extra: it counts only if the solver converges.
        """
        config, end = self._config, self._targets.num_fit
        starts = () if above else self._starts
        solution = self._bound.solve(
            l2,
            tol=config.tol,
            max_passes=config.max_passes,
            starts=starts,
            near=NEAR * config.tol,
        )
        found = solution.point
        if not above:
            self._starts = (found, *starts[: self._num_starts - 1])
        # In float64: the weights of a small penalty are large, and cancel.
        logits, labels = float64_logits(self._held_out, found.weight), self._targets.labels
        scores = logits + found.bias[:, None]
        sums = self._targets.sums
        loss, error = loss_and_error(scores, labels[end:], self._weight, sums)
        loss = loss if isfinite(loss) else inf  # logits beyond the dtype
        share = self._share_fitted  # of all rows, which num_passes counts
        passes = share * solution.num_passes + (1 - share) / 2
        self.num_passes += passes
        point = PathPoint(l2, loss, error, solution.duality_gap, passes, solution.status)
        self._on_solve("path", l2, passes, solution.duality_gap)
        if extra and solution.status not in (Status.CONVERGED, Status.NEAR):
            self._unsolved.append(point)
            return False
        place = 0 if above else len(self._points)
        self._points.insert(place, point)
        self._scores.insert(place, sample_scores(scores, labels[end:], config.choose_by))
        best = min(self._points, key=self._score) is point
        if best:
            seen = found.logits.new_empty(len(found.bias), 0)
            if self._num_starts > 1:
                seen = torch.cat([found.logits, logits.to(found.logits.dtype)], dim=1)
            start = replace(found, logits=seen)
            self._best = point, self._features, start, self._bound.learned
        return best

    def has_turned(self) -> bool:
        """Tell whether the score has clearly passed its minimum.

        A rise within its noise is none: the score may be flat, and that of few rows may rise by
        chance, until columns of small variance count.
        """
        scores = [self._score(point) for point in self._points]
        best, last = scores.index(min(scores)), len(scores) - 1
        if isinf(scores[last][0]):
            return True
        rise, error = self._mean_and_error(self._scores[last] - self._scores[best])
        clear = scores[last][0] > _STOP_RATIO * scores[best][0] or last - best >= _PATIENCE
        return clear and rise > NUM_ERRORS * error

    def solve_around(self, of_part: Path, widen: Widen | None) -> bool:
        """Solve for the best penalty of a part of the rows and those beside it, and go on there.

        The more rows, the smaller the best penalty is: a larger one is tried if none is better.

        Returns:
            Whether the held-out cross-entropy is what the part let expect: where it is larger, the
            part has misled, as it may where classes are rare or weigh much.
        """
        self._of_part, self.num_passes = of_part.points, of_part.num_passes
        start = of_part.start
        self._starts = (replace(start, logits=self._fitted.logits(start.weight)),)
        tried = {point.l2 for point in of_part.points} | set(self._config.l2_path)
        penalties = sorted(tried, reverse=True)
        place = penalties.index(of_part.best.l2)
        for l2 in penalties[place:]:
            if self._points and self._best[0] is not self._points[-1]:
                break
            self.solve_smaller(l2, widen)
        for l2 in reversed(penalties[:place]):
            if self._best[0] is not self._points[0]:
                break
            self.solve(l2, above=True)
        expected = of_part.best.validation_cross_entropy
        return min(p.validation_cross_entropy for p in self._points) <= _STOP_RATIO * expected

    def extend_up(self) -> None:
        """Go on to larger penalties while that helps."""
        while self._falls_to(0) and self.solve(
            _decade(self._points[0].l2, 1), above=True, extra=True
        ):
            pass

    def extend_down(self, widen: Widen | None) -> None:
        """Go on to smaller penalties while that helps, as far as arithmetic allows."""
        least = EXACT_L2 if self._config.exact else 0.0
        while self._falls_to(-1):
            l2 = _decade(self._points[-1].l2, -1)
            if l2 < least or not self.solve_smaller(l2, widen, extra=True):
                return

    def solve_smaller(self, l2: float, widen: Widen | None, *, extra: bool = False) -> bool:
        """Solve as `solve`; below the default path in float64, where float32 does not suffice."""
        if l2 < _FLOAT32_L2:
            self._widened(widen)
        small = l2 < DEFAULT_L2_PATH[-1] and widen is not None and not self._is_wide
        better = self.solve(l2, extra=extra or small)
        failed = bool(self._unsolved) and self._unsolved[-1].l2 == l2
        if small and failed and self._widened(widen):
            self._unsolved.pop()
            better = self.solve(l2, extra=extra)
        return better

    @property
    def _is_wide(self) -> bool:
        return self._features.dtype == torch.float64

    def _widened(self, widen: Widen | None) -> bool:
        """Go on in float64 from here; false where that can't be, or is already so."""
        if widen is None or self._is_wide:
            return False
        self._options = self._bound.learned
        self._read(widen())
        return True

    def path(self) -> Path:
        """Give what was found."""
        best, features, start, learned = self._best
        chosen_scores = self._scores[self._points.index(best)]
        points = [
            replace(point, standard_error=self._mean_and_error(scores - chosen_scores)[1])
            for point, scores in zip(self._points, self._scores, strict=True)
        ]
        chosen = points[self._points.index(best)]
        points = [*points, *self._unsolved]
        solved = {point.l2 for point in points}
        points += [point for point in self._of_part if point.l2 not in solved]
        points.sort(key=lambda p: -p.l2)
        at_edge = self._falls_to(0) or self._falls_to(-1)
        found = chosen, at_edge, features, start, learned
        return Path(tuple(points), *found, num_passes=self.num_passes)

    def _falls_to(self, end: int) -> bool:
        """Tell whether the score falls, by more than its noise, to an end (0, -1)."""
        if len(self._points) < 2 or self._best[0] is not self._points[end]:
            return False
        before = self._scores[-2 if end else 1]
        fall, error = self._mean_and_error(before - self._scores[end])
        return fall > NUM_ERRORS * error and fall > max(_LEAST_FALL, self._config.tol)

    def _mean_and_error(self, values: Tensor) -> tuple[float, float]:
        return mean_and_error(values, self._weight, self._targets.sums)

    def _score(self, point: PathPoint) -> tuple[float, float]:
        return score(point, self._config.choose_by)


def _decade(l2: float, step: int) -> float:
    return float(10.0 ** (round(log10(l2)) + step))
