"""The solve of the chosen penalty on all training rows: certified, and refined to be exact."""

import math
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from linprobe.core.certificate import Certificate, certify, float64_logits
from linprobe.core.features import FeatureMatrix, StandardisedFeatures
from linprobe.core.problem import SoftmaxRegression
from linprobe.core.refine import Refining, refine_certified
from linprobe.core.row_space import RowSpace, known_row_space
from linprobe.core.solve import (
    Attempt,
    CertifiedSolution,
    SolverFactory,
    solve_certified,
)
from linprobe.core.solvers.base import Point, Status
from linprobe.core.solvers.contrast import refinement
from linprobe.core.sums import anywhere, least
from linprobe.probes.base import OnSolve, Targets
from linprobe.probes.config import ProbeConfig
from linprobe.probes.part import solve_path_of_part
from linprobe.probes.path import NEAR, Path, solve_path
from linprobe.probes.scores import loss_and_error

_FLOAT64_BYTES = 2 * 2**30  # problems up to this size are solved in float64 as a last resort
# A refit that is to be exact goes on to this share of l2, where margins are known to about a
# thousandth, and of tol; of many features, where passes are dear, to the larger one.
_EXACT_SHARE, _EXACT_SHARE_OF_MANY, _MANY_FEATURES = 1e-6, 1e-3, 1024
_FOR_EXACT = 2  # times the passes that are allowed for a proof
# Rounding of the gradient, of the arithmetic's precision; its square over 2 l2 is left of the gap.
_GRADIENT_ROUNDING = {torch.float32: 20.0, torch.float64: 40.0}


class Refit:
    """Path and refit on standardised features of classes that all occur.

    Args:
        features: the training rows, those held out last.
        targets: their labels and weights.
        config: the method's numbers.
        solver: makes the solver of a problem.
        on_solve: called after each solve.
    """

    def __init__(
        self,
        features: StandardisedFeatures,
        targets: Targets,
        config: ProbeConfig,
        solver: SolverFactory,
        on_solve: OnSolve,
    ) -> None:
        self._features, self._targets, self._config = features, targets, config
        self._solver, self._on_solve = solver, on_solve
        generator = torch.Generator().manual_seed(config.seed)
        # A layer of low rank is solved in coordinates of its row space, and certified as it is.
        alone = targets.sums.alone
        self._space = known_row_space(features, generator) if alone else None
        self._solved: FeatureMatrix = self._space.coordinates if self._space else features
        size = 8 * features.num_rows * features.num_features
        too_large = math.isinf(features.room) and size > _FLOAT64_BYTES  # else nothing is copied
        self._widens = features.dtype != torch.float64 and not anywhere(targets.sums, too_large)
        self._wide = False
        self._refinement: Refining | None = None  # made when it is needed

    def chosen(self) -> tuple[Path, CertifiedSolution]:
        """Solve the path and refit its best penalty, or the next larger one that can be."""
        given = (self._solved, self._targets, self._config, self._solver, self._on_solve)
        widen = self._solved.in_float64 if self._widens else None
        path = solve_path(*given, widen, solve_path_of_part(*given))
        self._wide = self._wide or path.features is not self._solved
        self._solved = path.features
        solution = self._certified(path)
        while solution.status is not Status.CONVERGED and path.best.l2 < self._config.l2_path[-1]:
            path = path.shortened(self._config.choose_by)
            solution = self._certified(path)
        return path, solution

    def exact(self, path: Path, solution: CertifiedSolution) -> CertifiedSolution:
        """Solve on to a gap that decides nearly all samples."""
        many = self._solved.num_features > _MANY_FEATURES
        share = _EXACT_SHARE_OF_MANY if many else _EXACT_SHARE
        return self.nearer(path, solution, share * min(self._config.tol, path.best.l2))

    def nearer(self, path: Path, solution: CertifiedSolution, gap: float) -> CertifiedSolution:
        """Solve on to a duality gap (nats), as far as arithmetic and passes allow."""
        l2 = path.best.l2
        if self._refinement is None:
            space, features = self._read_by(solution)
            self._refinement = refinement(self._problem(features), l2, path.learned, space)

        def solve(start: Point, tol: float, max_passes: float) -> CertifiedSolution:
            attempts = self._attempts(tol)
            attempt = attempts[min(solution.attempt, len(attempts) - 1)]
            return self._solve(path, [attempt], start, max_passes)

        goal = max(gap, _least_gap(l2, torch.float64))
        proving = gap >= self._config.tol  # else what arithmetic leaves is good enough
        solution = refine_certified(
            solution,
            self._refinement,
            partial(self._check, l2),
            solve,
            goal=goal,
            least=2 * _least_gap(l2, self._solved.dtype) if proving else math.inf,
            max_passes=(1 if proving else _FOR_EXACT) * self._config.max_passes,
            demanding=self._may_widen and self._is_narrow,
        )
        if solution.certificate.duality_gap <= goal or not self._widened():
            return solution
        return self.nearer(path, self._restated(solution), gap)

    def _certified(self, path: Path) -> CertifiedSolution:
        """Solve for the best penalty of the path, and prove what is left.

        The solver ends where the minimum is estimated to be near. From there a few of Newton's
        steps, with gradients in float64, prove it sooner than the solver's own.
        """
        start: Point | None = self._start(path)
        tol, most = self._config.tol, self._config.max_passes
        self._refinement = None
        solution = self._solve(path, self._attempts(tol), start, most, NEAR * tol)
        del start  # its logits
        if solution.status is not Status.NEAR:
            return solution
        solution = self.nearer(path, solution, tol)
        if solution.certificate.duality_gap <= tol:
            return replace(solution, status=Status.CONVERGED)
        self._refinement, left = None, most - solution.num_passes
        start = self._restated(solution).own_point
        solved = self._solve(path, self._attempts(tol), start, left)
        return replace(solved, num_passes=solution.num_passes + solved.num_passes)

    def _start(self, path: Path) -> Point | None:
        """Give the path's solution; None where a guess is a better start."""
        start = path.start
        if not start.logits.shape[1]:
            start = replace(start, logits=self._solved.logits(start.weight))
        return None if self._is_misled(start) else start

    def _is_misled(self, start: Point) -> bool:
        """Tell whether nearly all of a class's weight is held out."""
        targets = self._targets
        if targets.sample_weight is None:
            return False
        logits = start.logits.double() + start.bias[:, None]
        loss, _ = loss_and_error(logits, targets.labels, targets.sample_weight, targets.sums)
        return loss > math.log(targets.num_classes)

    def _read_by(self, solution: CertifiedSolution) -> tuple[RowSpace | None, FeatureMatrix]:
        """Give the features that served a solution, and their row space if they are coordinates."""
        if solution.attempt == 0 or self._space is None:
            return self._space, self._solved
        return None, self._features.in_float64() if self._wide else self._features

    def _restated(self, solution: CertifiedSolution) -> CertifiedSolution:
        """Compute a solution's logits again, in float64: those of float32 would mislead it."""
        weight = solution.own_point.weight
        own = float64_logits(self._read_by(solution)[1], weight)
        logits = float64_logits(self._features, solution.point.weight)
        return replace(
            solution,
            point=replace(solution.point, logits=logits),
            own_point=replace(solution.own_point, logits=own),
        )

    @property
    def _is_narrow(self) -> bool:
        """Tell whether float64 is cheap: few features, in memory."""
        copied = math.isinf(least(self._targets.sums, self._solved.room))
        return copied and self._solved.num_features <= _MANY_FEATURES

    @property
    def _may_widen(self) -> bool:
        return self._widens and not self._wide

    def _widened(self) -> bool:
        """Go on in float64 from here; false where that can't be, or is already so."""
        if not self._may_widen:
            return False
        self._solved, self._wide, self._refinement = self._solved.in_float64(), True, None
        return True

    def _attempts(self, tol: float) -> list[Attempt]:
        """Give the ways to solve on all rows, each harder than the one before."""
        features = self._features
        attempts = [Attempt(lambda: self._solved, tol, self._space.lift if self._space else None)]
        if not self._wide:
            attempts.append(Attempt(lambda: features, tol / 4))
        if self._widens:
            attempts.append(Attempt(features.in_float64, tol / 2))
        return attempts

    def _solve(
        self,
        path: Path,
        attempts: list[Attempt],
        start: Point | None,
        max_passes: float,
        near: float = 0.0,
    ) -> CertifiedSolution:
        """Solve on all rows; where the certificate disagrees with the solver, try harder."""
        l2 = path.best.l2
        return solve_certified(
            attempts,
            self._problem,
            partial(self._check, l2),
            l2,
            tol=self._config.tol,
            max_passes=max_passes,
            start=start,
            near=near,
            solver=self._solver,
            options=path.learned,
            on_attempt=lambda passes, gap: self._on_solve("refit", l2, passes, gap),
        )

    def _problem(self, features: FeatureMatrix) -> SoftmaxRegression:
        targets = self._targets
        weight, sums = targets.sample_weight, targets.sums
        return SoftmaxRegression(features, targets.labels, targets.num_classes, weight, sums)

    def _check(self, l2: float, weight: Tensor, bias: Tensor) -> Certificate:
        of = self._targets
        return certify(
            *(self._features, of.labels, weight, bias, l2),
            sample_weight=of.sample_weight,
            sums=of.sums,
        )


def _least_gap(l2: float, dtype: torch.dtype) -> float:
    """About the duality gap (nats) at which arithmetic ends."""
    return float((_GRADIENT_ROUNDING[dtype] * torch.finfo(dtype).eps) ** 2 / (2 * l2))
