"""The certified probe: standardise, choose l2 on held-out training rows, refit, certify.

1. Features are standardised by the statistics of the training split, weighted as in P.
2. The problem is solved on the training rows that are not held out, for a path of `l2` from large
   to small, each solution starting from those before it.
3. The `l2` with the least held-out cross-entropy (or error rate) is refitted on all training rows,
   starting from its solution, and certified in float64 at the weight that is returned. Where the
   probe is to be exact, it is then refined (`linprobe.core.refine`) to a gap far below the
   tolerance.
4. The test split is touched once, by that weight; of an exact probe that leaves test samples
   undecided, by that of a refinement that decides them too.
"""

import time
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from linprobe.core.features import (
    LARGEST,
    DenseFeatures,
    FeatureMatrix,
    StandardisedFeatures,
    standardised,
)
from linprobe.core.optimum_bounds import OptimumBounds, UnknownBounds
from linprobe.core.rounding import is_rounded
from linprobe.core.solve import DEFAULT_SOLVER, CertifiedSolution, SolverFactory
from linprobe.core.solvers.base import Status
from linprobe.probes.base import FailedProbe, FittedProbe, OnSolve, Targets, proven
from linprobe.probes.checks import all_finite, check_splits, nonfinite
from linprobe.probes.config import ProbeConfig
from linprobe.probes.holdout import num_held_out
from linprobe.probes.path import Path
from linprobe.probes.refit import Refit
from linprobe.probes.weights import row_weights
from linprobe.runtime.defaults import own_defaults
from linprobe.runtime.devices import solving_device
from linprobe.runtime.errors import LinprobeError

_POLISH = 0.3  # of the gap that would decide all samples
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
        sums = None if targets is None else targets.sums
        if not all_finite(features, sums):
            return nonfinite(features, 0)
        weight = None if targets is None else row_weights(targets, self.config.class_weight)
        prepared = standardised(features, self.config.scale, weight, sums)
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
        counts = torch.bincount(targets.labels, minlength=targets.num_classes)
        classes = targets.sums.total(counts).nonzero()[:, 0]
        compact = torch.searchsorted(classes, targets.labels.contiguous())
        weight = row_weights(targets, self.config.class_weight)
        present = replace(targets, labels=compact, num_classes=len(classes), sample_weight=weight)
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
    """One probe on standardised features of classes that all occur."""

    def __init__(
        self,
        method: SoftmaxProbe,
        features: StandardisedFeatures,
        targets: Targets,
        on_solve: OnSolve,
    ) -> None:
        self.features, self.targets, self.exact = features, targets, method.config.exact
        self.refit = Refit(features, targets, method.config, method.solver, on_solve)

    def run(self) -> FittedProbe:
        """Fit the probe, but for its seconds."""
        path, solution = self.refit.chosen()
        may_polish = self.exact and solution.status is Status.CONVERGED
        if may_polish:
            solution = self.refit.exact(path, solution)
        return self._fitted(path, solution, may_polish)

    def _polished(self, path: Path, before: CertifiedSolution, gap: float) -> FittedProbe | None:
        """Solve on to a gap that decides all samples; None where arithmetic ends before."""
        solution = self.refit.nearer(path, before, _POLISH * gap)
        nearer = solution.certificate.duality_gap < before.certificate.duality_gap
        return self._fitted(path, solution, may_polish=True) if nearer else None

    def _fitted(self, path: Path, solution: CertifiedSolution, may_polish: bool) -> FittedProbe:
        certificate, point, best = solution.certificate, solution.point, path.best
        targets = self.targets
        weight, bias = self.features.standardisation.to_raw(point.weight, point.bias)
        return FittedProbe(
            weight=weight,
            bias=bias,
            standardisation=self.features.standardisation,
            path=path.points,
            l2=best.l2,
            l2_at_edge=path.at_edge,
            status=solution.status,
            validation_error_rate=best.validation_error_rate,
            validation_cross_entropy=best.validation_cross_entropy,
            num_passes=solution.num_passes + path.num_passes,
            seconds=_NAN,
            rounded=is_rounded(self.features, point, targets.sample_weight, targets.sums),
            bounds=OptimumBounds.of(
                *(self.features, point, best.l2, certificate),
                *(targets.sample_weight, targets.sums),
            ),
            polish=partial(self._polished, path, solution) if may_polish else None,
            **proven(certificate),
        )


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
    here = torch.bincount(targets.labels[: targets.num_fit], minlength=targets.num_classes)
    if not bool((targets.sums.total(here) > 0).all()):
        raise LinprobeError(
            "a class stands in the held-out rows only; order the training rows by "
            "linprobe.holdout_order, which never holds out the last sample of a class"
        )
    held_out = int(targets.sums.total(torch.tensor(targets.num_held_out)))
    if not held_out and len(config.l2_path) > 1:
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
