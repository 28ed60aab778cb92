"""The certified probe: standardise, choose l2 on held-out training rows, refit, certify.

1. Features are standardised by the statistics of the training split, weighted as in P.
2. The problem is solved on the training rows that are not held out, for a path of `l2` from large
   to small, each solution starting from those before it.
3. The `l2` with the least held-out cross-entropy is refitted on all training rows, starting from
   its solution, and certified in float64 at the weight that is returned. Where the probe is to be
   exact, it is then refined (`linprobe.core.refine`) to a gap far below the tolerance.
4. The test split is touched once, by that weight; of an exact probe that leaves test samples
   undecided, by that of a refinement that decides them too.
"""

import math
import time
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from linprobe.core.certificate import Certificate, certify
from linprobe.core.features import (
    LARGEST,
    DenseFeatures,
    FeatureMatrix,
    StandardisedFeatures,
    standardised,
)
from linprobe.core.optimum_bounds import OptimumBounds, UnknownBounds
from linprobe.core.problem import SoftmaxRegression
from linprobe.core.refine import refine_certified
from linprobe.core.rounding import is_rounded
from linprobe.core.row_space import find_row_space
from linprobe.core.solve import (
    DEFAULT_SOLVER,
    Attempt,
    CertifiedSolution,
    SolverFactory,
    in_float64,
    solve_certified,
)
from linprobe.core.solvers.base import Point, Status
from linprobe.core.solvers.refinement import Refinement
from linprobe.probes.base import (
    FailedProbe,
    FittedProbe,
    OnSolve,
    Targets,
    all_finite,
    check_splits,
    loss_and_error,
    nonfinite,
    proven,
)
from linprobe.probes.config import ProbeConfig
from linprobe.probes.holdout import num_held_out
from linprobe.probes.path import NEAR, Path, solve_path
from linprobe.probes.weights import row_weights
from linprobe.runtime.defaults import own_defaults
from linprobe.runtime.devices import solving_device
from linprobe.runtime.errors import LinprobeError

_FLOAT32_L2 = 1e-10  # smaller penalties are below the rounding of float32 from the start
_FLOAT64_BYTES = 2 * 2**30  # problems up to this size are solved in float64 as a last resort
# A refit that is to be exact goes on to this share of l2, where margins are known to about a
# thousandth, and of tol; of many features, where passes are dear, to the larger one. Then to this
# share of the gap that would decide all samples.
_EXACT_SHARE, _EXACT_SHARE_OF_MANY, _MANY_FEATURES = 1e-6, 1e-3, 1024
_POLISH = 0.3
# Rounding of the gradient, of the features' precision; its square over 2 l2 is left of the gap.
_GRADIENT_ROUNDING = {torch.float32: 0.1, torch.float64: 40.0}
_NAN = float("nan")


class SoftmaxProbe:
    """Softmax regression, solved to a certified optimum; a `ProbeMethod`.

    Args:
        config: the method's numbers.
        solver: makes the solver of a problem; default: `SubsampledNewton`, of two
            classes on their contrast.
    """

    def __init__(
        self, config: ProbeConfig | None = None, solver: SolverFactory = DEFAULT_SOLVER
    ) -> None:
        self.config, self.solver = config or ProbeConfig(), solver

    def prepare(
        self, features: FeatureMatrix, targets: Targets | None = None
    ) -> StandardisedFeatures | FailedProbe:
        """Standardise the training rows; see `linprobe.probes.base.ProbeMethod`."""
        if isinstance(features, StandardisedFeatures):
            return features
        if not all_finite(features):
            return nonfinite(features, 0)
        weight = None if targets is None else row_weights(targets, self.config.class_weight)
        prepared = standardised(features, self.config.scale, weight)
        if prepared.standardisation.exists:
            return prepared
        reason = "the features are beyond what float64 can scale to 1; multiply them by a number"
        return FailedProbe(Status.PRECISION_LIMIT, reason, features.num_features, 0)

    def fit(
        self, features: FeatureMatrix, targets: Targets, on_solve: OnSolve | None = None
    ) -> FittedProbe | FailedProbe:
        """Choose the penalty, refit and certify; see `linprobe.probes.base.ProbeMethod`.

        Raises:
            LinprobeError: A class stands in the held-out rows only, or there is no row to choose
                between several penalties by.
        """
        started = time.perf_counter()
        prepared = self.prepare(features, targets)
        if isinstance(prepared, FailedProbe):
            return replace(
                prepared,
                num_classes=targets.num_classes,
                seconds=time.perf_counter() - started,
            )
        classes = torch.unique(targets.labels)
        compact = torch.searchsorted(classes, targets.labels.contiguous())
        weight = row_weights(targets, self.config.class_weight)
        present = Targets(compact, len(classes), targets.num_held_out, weight)
        if len(classes) == 1:
            fitted = _degenerate(prepared)
        else:
            _check_held_out(present, self.config)
            fitted = _Fit(self, prepared, present, on_solve or _ignore).run()
        if not float(fitted.weight.abs().max()) < LARGEST:
            reason = "the weights are beyond what float64 holds; raise l2 or multiply the features"
            shape = features.num_features, targets.num_classes
            seconds = time.perf_counter() - started
            return FailedProbe(Status.PRECISION_LIMIT, reason, *shape, seconds)
        if len(classes) < targets.num_classes:
            fitted = _with_absent_classes(fitted, classes, targets.num_classes)
        return replace(fitted, seconds=time.perf_counter() - started)


@own_defaults()
def fit_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    config: ProbeConfig | None = None,
    *,
    num_classes: int | None = None,
    on_event: OnSolve | None = None,
) -> FittedProbe | FailedProbe:
    """Fit, certify and evaluate the probe of one layer.

    Args:
        train_features: (n_train, n_features), raw, of any floating dtype; float16 and bfloat16 are
            solved as float32. The last `num_held_out` rows are the held-out ones: order the rows
            by `holdout_order`. Copied, never written to. Solved on their device, or on the CPU
            where that has no float64.
        train_labels: (n_train,) int64.
        test_features: (n_test, n_features), raw.
        test_labels: (n_test,) int64.
        config: the method's numbers.
        num_classes: K; default: one more than the largest label.
        on_event: called after each solve.

    Returns:
        The tested probe, or why there is none: features that are not all finite.

    Raises:
        LinprobeError: Shapes or labels that cannot be used.
    """
    config = config or ProbeConfig()
    place, _ = solving_device(train_features.device)
    train_features, test_features = train_features.to(place), test_features.to(place)
    train_labels, test_labels = train_labels.to(place), test_labels.to(place)
    check_splits(train_features, train_labels, test_features, test_labels)
    if num_classes is None:
        num_classes = int(max(train_labels.max(), test_labels.max())) + 1
    if not all_finite(test_features):
        return nonfinite(DenseFeatures(test_features), num_classes, "test")
    held_out = num_held_out(len(train_labels), config.validation_fraction)
    targets = Targets(train_labels, num_classes, held_out)
    fitted = SoftmaxProbe(config).fit(DenseFeatures(train_features), targets, on_event)
    if isinstance(fitted, FailedProbe):
        return fitted
    return fitted.tested(test_features, test_labels)


class _Fit:
    """Path, refit and certificate on standardised features of classes that all occur."""

    def __init__(
        self,
        method: SoftmaxProbe,
        features: StandardisedFeatures,
        targets: Targets,
        on_solve: OnSolve,
    ) -> None:
        self.features, self.targets, self.config = features, targets, method.config
        self.solver, self.on_solve = method.solver, on_solve
        generator = torch.Generator().manual_seed(self.config.seed)
        # A layer of low rank is solved in coordinates of its row space, and certified as it is.
        self.space = find_row_space(features, generator)
        self.solved: FeatureMatrix = self.space.coordinates if self.space else features
        size = 8 * features.num_rows * features.num_features
        self.widens = features.dtype != torch.float64 and size <= min(_FLOAT64_BYTES, features.room)
        self.wide = self.widens and self.config.l2_path[-1] < _FLOAT32_L2
        if self.wide:
            self.solved = in_float64(self.solved)
        self.refinement: Refinement | None = None  # made when it is needed

    def run(self) -> FittedProbe:
        """Fit the probe, but for its seconds."""
        path = solve_path(
            *(self.solved, self.targets, self.config, self.solver, self.on_solve),
            (lambda: in_float64(self.solved)) if self.widens else None,
        )
        self.wide, self.solved = self.wide or path.features is not self.solved, path.features
        refit = self._refit(path)
        while refit.status is not Status.CONVERGED and path.best.l2 < self.config.l2_path[-1]:
            path = path.shortened()
            refit = self._refit(path)
        may_polish = self.config.exact and refit.status is Status.CONVERGED
        if may_polish:
            many = self.solved.num_features > _MANY_FEATURES
            share = _EXACT_SHARE_OF_MANY if many else _EXACT_SHARE
            refit = self._nearer(path, refit, share * min(self.config.tol, path.best.l2))
        return self._fitted(path, refit, may_polish)

    def _refit(self, path: Path) -> CertifiedSolution:
        start = None if self._is_misled(path.start) else path.start
        attempts, tol = self._attempts(self.config.tol), self.config.tol
        self.refinement = None
        refit = self._solve(path, attempts, start, self.config.max_passes, NEAR * tol)
        if refit.status is not Status.NEAR:
            return refit
        refit = self._nearer(path, refit, tol)
        if refit.certificate.duality_gap <= tol:
            return replace(refit, status=Status.CONVERGED)
        self.refinement, left = None, self.config.max_passes - refit.num_passes
        solved = self._solve(path, attempts, refit.own_point, left)
        return replace(solved, num_passes=refit.num_passes + solved.num_passes)

    def _is_misled(self, start: Point) -> bool:
        """Tell whether nearly all of a class's weight is held out: a guess is a better start."""
        targets = self.targets
        if targets.sample_weight is None:
            return False
        logits = start.logits.double() + start.bias[:, None]
        loss, _ = loss_and_error(logits, targets.labels, targets.sample_weight)
        return loss > math.log(targets.num_classes)

    def _nearer(self, path: Path, refit: CertifiedSolution, gap: float) -> CertifiedSolution:
        """Solve on to a duality gap (nats), as far as arithmetic and passes allow."""
        l2 = path.best.l2
        if self.refinement is None:
            # In coordinates of the row space, if those served the refit.
            space, x = (self.space, self.solved) if refit.attempt == 0 else (None, self.features)
            self.refinement = Refinement(self._problem(x), l2, path.learned, space)

        def solve(start: Point, tol: float, max_passes: float) -> CertifiedSolution:
            attempt = self._attempts(tol)[refit.attempt]
            return self._solve(path, [attempt], start, max_passes)

        goal = max(gap, _least_gap(l2, torch.float64))
        refit = refine_certified(
            refit,
            self.refinement,
            partial(self._check, l2),
            solve,
            goal=goal,
            least=2 * _least_gap(l2, self.solved.dtype),
            max_passes=self.config.max_passes,
        )
        if refit.certificate.duality_gap <= goal or not self._widened():
            return refit
        return self._nearer(path, refit, gap)

    def _widened(self) -> bool:
        """Go on in float64 from here; false where that can't be, or is already so."""
        if not self.widens or self.solved.dtype == torch.float64:
            return False
        self.solved, self.wide, self.refinement = in_float64(self.solved), True, None
        return True

    def _polished(self, path: Path, before: CertifiedSolution, gap: float) -> FittedProbe | None:
        """Solve on to a gap that decides all samples; None where arithmetic ends before."""
        refit = self._nearer(path, before, _POLISH * gap)
        nearer = refit.certificate.duality_gap < before.certificate.duality_gap
        return self._fitted(path, refit, may_polish=True) if nearer else None

    def _fitted(self, path: Path, refit: CertifiedSolution, may_polish: bool) -> FittedProbe:
        certificate, best = refit.certificate, path.best
        weight, bias = self.features.standardisation.to_raw(refit.point.weight, refit.point.bias)
        return FittedProbe(
            weight=weight,
            bias=bias,
            standardisation=self.features.standardisation,
            path=path.points,
            l2=best.l2,
            l2_at_edge=path.at_edge,
            status=refit.status,
            validation_error_rate=best.validation_error_rate,
            validation_cross_entropy=best.validation_cross_entropy,
            num_passes=refit.num_passes + sum(p.num_passes for p in path.points),
            seconds=_NAN,
            rounded=is_rounded(self.features, refit.point, self.targets.sample_weight),
            bounds=OptimumBounds.of(
                *(self.features, refit.point, best.l2, certificate, self.targets.sample_weight)
            ),
            polish=partial(self._polished, path, refit) if may_polish else None,
            **proven(certificate),
        )

    def _attempts(self, tol: float) -> list[Attempt]:
        """Give the ways to solve on all rows, each harder than the one before."""
        features = self.features
        attempts = [Attempt(lambda: self.solved, tol, self.space.lift if self.space else None)]
        if not self.wide:
            attempts.append(Attempt(lambda: features, tol / 4))
        if self.widens:
            attempts.append(Attempt(lambda: in_float64(features), tol / 2))
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
            tol=self.config.tol,
            max_passes=max_passes,
            start=start,
            near=near,
            solver=self.solver,
            options=path.learned,
            on_attempt=lambda passes, gap: self.on_solve("refit", l2, passes, gap),
        )

    def _problem(self, features: FeatureMatrix) -> SoftmaxRegression:
        targets = self.targets
        return SoftmaxRegression(
            features, targets.labels, targets.num_classes, targets.sample_weight
        )

    def _check(self, l2: float, weight: Tensor, bias: Tensor) -> Certificate:
        labels, s = self.targets.labels, self.targets.sample_weight
        return certify(self.features, labels, weight, bias, l2, sample_weight=s)


def _least_gap(l2: float, dtype: torch.dtype) -> float:
    """About the duality gap (nats) at which arithmetic ends."""
    return float((_GRADIENT_ROUNDING[dtype] * torch.finfo(dtype).eps) ** 2 / (2 * l2))


def _with_absent_classes(fitted: FittedProbe, present: Tensor, num_classes: int) -> FittedProbe:
    """Add classes without a training sample, which the probe never predicts."""
    weight = fitted.weight.new_zeros(num_classes, fitted.weight.shape[1])
    bias = fitted.bias.new_full((num_classes,), float("-inf"))
    weight[present], bias[present] = fitted.weight, fitted.bias
    polish = fitted.polish

    def polished(gap: float) -> FittedProbe | None:
        better = polish(gap) if polish else None
        return better and _with_absent_classes(better, present, num_classes)

    return replace(fitted, weight=weight, bias=bias, polish=polished)


def _check_held_out(targets: Targets, config: ProbeConfig) -> None:
    fitted = torch.bincount(targets.labels[: targets.num_fit], minlength=targets.num_classes)
    if not bool((fitted > 0).all()):
        raise LinprobeError(
            "a class stands in the held-out rows only; order the training rows by "
            "linprobe.holdout_order, which never holds out the last sample of a class"
        )
    if not targets.num_held_out and len(config.l2_path) > 1:
        raise LinprobeError(
            f"no training row is held out to choose between {len(config.l2_path)} penalties; "
            "expected at least one: hold rows out, or give a single l2"
        )


def _degenerate(features: StandardisedFeatures) -> FittedProbe:
    """Return the probe of a single class, which it always predicts."""
    weight = torch.zeros(1, features.num_features, dtype=torch.float64, device=features.device)
    return FittedProbe(
        weight=weight,
        bias=weight.new_zeros(1),
        standardisation=features.standardisation,
        path=(),
        l2=_NAN,
        l2_at_edge=False,
        status=Status.DEGENERATE_LABELS,
        objective=_NAN,
        duality_gap=_NAN,
        grad_norm=_NAN,
        bias_residual=_NAN,
        train_error_rate=_NAN,
        validation_error_rate=_NAN,
        train_cross_entropy=_NAN,
        validation_cross_entropy=_NAN,
        num_passes=0.0,
        seconds=_NAN,
        rounded=features.rounded,
        bounds=UnknownBounds(),
    )


def _ignore(stage: str, l2: float, num_passes: float, duality_gap: float) -> None:
    """Take no notice; the default of `on_solve`."""
