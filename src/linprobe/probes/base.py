"""The interface of every kind of probe: targets, methods, fitted and failed probes."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from linprobe.core.certificate import Certificate, float64_logits
from linprobe.core.features import FeatureMatrix, Standardisation, as_features
from linprobe.core.optimum_bounds import OptimumBounds, OptimumError, UnknownBounds
from linprobe.core.solvers.base import Status
from linprobe.core.sums import LocalSums, Sums, anywhere
from linprobe.probes.scores import loss_and_error
from linprobe.runtime.errors import LinprobeError

OnSolve = Callable[[str, float, float, float], None]
"""Called as ``on_solve(stage, l2, num_passes, duality_gap)``; stage is "path" or "refit".

Where a probe is trained, it is "epoch", with the learning rate, the number of epochs and the mean
training cross-entropy (nats).
"""

_MAX_POLISHES = 4


@dataclass(frozen=True)
class Targets:
    """The labels of the training rows.

    Attributes:
        labels: (n_train,) int64 in 0..num_classes-1, in the order of the rows.
        num_classes: K.
        num_held_out: rows at the end that choose the penalty and are not fitted for that.
        sample_weight: (n_train,) float64, positive, of the rows; None: all count the same.
        sums: completes sums over rows, where other processes have some.
    """

    labels: Tensor
    num_classes: int
    num_held_out: int
    sample_weight: Tensor | None = None
    sums: Sums = field(default_factory=LocalSums, repr=False)

    @property
    def num_fit(self) -> int:
        """Rows before the held-out ones."""
        return len(self.labels) - self.num_held_out

    def to(self, device: torch.device) -> "Targets":
        """Copy to a device."""
        weight = None if self.sample_weight is None else self.sample_weight.to(device)
        return replace(self, labels=self.labels.to(device), sample_weight=weight)


@dataclass(frozen=True)
class FailedProbe:
    """A probe that could not be fitted.

    Attributes:
        status: why, as a word.
        reason: why, as a sentence without its full stop.
        num_features: D.
        num_classes: K.
        seconds: spent on it.
    """

    status: Status
    reason: str
    num_features: int
    num_classes: int
    seconds: float = 0.0


@dataclass(frozen=True)
class PathPoint:
    """One `l2` of the path, solved on the rows that are not held out.

    Attributes:
        standard_error: of the difference of its score (`ProbeConfig.choose_by`) from that of the
            chosen one, over the held-out rows.
        duality_gap: the solver's own; only the refit is certified.
        num_rows: that it was solved on, where these are a part of the rows; None: all.
    """

    l2: float
    validation_cross_entropy: float
    validation_error_rate: float
    duality_gap: float
    num_passes: float
    status: Status
    standard_error: float = float("nan")
    num_rows: int | None = None


@dataclass(frozen=True)
class TestResult:
    """A probe on the test split.

    Attributes:
        error_rate: fraction of wrong predictions.
        cross_entropy: nats; infinite where the split has a class that training lacks.
        logits: (K, n_test) float64.
        optimum_error: interval of the exact optimum's error rate, by the certificate; None: not
            computed.
    """

    __test__ = False  # no test case, whatever pytest thinks of the name

    error_rate: float
    cross_entropy: float
    logits: Tensor = field(repr=False, compare=False)
    optimum_error: OptimumError | None


@dataclass(frozen=True)
class FittedProbe:
    """A probe and what is known of it; error rates are fractions, cross-entropies nats.

    Attributes:
        weight: (K, n_features) float64 on raw features, so that
            ``logits = raw_features @ weight.T + bias``.
        bias: (K,) float64; minus infinity for a class without training samples.
        standardisation: the map to the space where `l2` is stated; ``weight / scale`` is W.
        path: the penalties tried, from large to small.
        l2_at_edge: whether the path ended at the chosen penalty though the held-out score still
            fell towards it by more than its noise.
        num_passes: of the path and the refit together; epochs of a probe trained by minibatches.
        rounded: of what varies in the features, or of what the probe uses of that, too much may be
            their own rounding; see `linprobe.core.rounding`.
        bounds: where the exact optimum can be, until the probe is tested.
        polish: solves on to a smaller duality gap (nats), or gives None where that is not possible;
            until the probe is tested.
        test: the probe on the test split; None: not tested.
    """

    weight: Tensor
    bias: Tensor
    standardisation: Standardisation
    path: tuple[PathPoint, ...]
    l2: float
    l2_at_edge: bool
    status: Status
    objective: float
    duality_gap: float
    grad_norm: float
    bias_residual: float
    train_error_rate: float
    validation_error_rate: float
    train_cross_entropy: float
    validation_cross_entropy: float
    num_passes: float
    seconds: float
    rounded: bool
    bounds: OptimumBounds | UnknownBounds | None = field(default=None, repr=False)
    polish: "Callable[[float], FittedProbe | None] | None" = field(default=None, repr=False)
    test: TestResult | None = None

    def tested(
        self, features: Tensor | FeatureMatrix, labels: Tensor, sums: Sums | None = None
    ) -> "FittedProbe":
        """Evaluate the probe on the test split, once.

        Where the probe can be polished, that is done until the certificate tells of each test
        sample whether the exact optimum classifies it correctly.

        Args:
            features: (n_test, n_features), raw, a tensor or any `FeatureMatrix`; never written to.
            labels: (n_test,) int64.
            sums: completes sums over samples, where other processes have some; logits of all of
                them are gathered.

        Returns:
            This probe or a polished one, with `test`, without `bounds`, and with the seconds that
            it took added.

        Raises:
            LinprobeError: Features that are not all finite.
        """
        started, features = time.perf_counter(), as_features(features)
        sums = sums or LocalSums()
        fitted, test = self, self._on(features, labels, sums)
        for _ in range(_MAX_POLISHES):
            left = test.optimum_error
            if fitted.polish is None or left is None or not left.num_undecided:
                break
            if (better := fitted.polish(left.sufficient_gap)) is None:
                break
            fitted, test = better, better._on(features, labels, sums)
        seconds = self.seconds + time.perf_counter() - started
        return replace(fitted, test=test, bounds=None, polish=None, seconds=seconds)

    def _on(self, features: FeatureMatrix, labels: Tensor, sums: Sums) -> TestResult:
        logits = float64_logits(features, self.weight)
        finite = bool(torch.isfinite(logits).all())
        if anywhere(sums, not finite):  # even a zero weight carries NaN on
            raise LinprobeError(
                "the test features hold NaN or infinity, or numbers so much larger than the "
                "training features that their logits do; expected finite numbers: test the probe "
                "on features for which linprobe.probes.checks.all_finite holds"
            )
        logits += self.bias[:, None]
        optimum_error = None
        if self.bounds is not None:
            classes = torch.isfinite(self.bias).nonzero()[:, 0]
            known = torch.isin(labels, classes)
            own = torch.where(known, torch.searchsorted(classes, labels.contiguous()), -1)
            local = self.bounds.error_interval(logits[classes], own, features, self.standardisation)
            optimum_error = local.pooled(len(labels), sums)
        cross_entropy, error_rate = loss_and_error(logits, labels, sums=sums)
        return TestResult(error_rate, cross_entropy, sums.gathered(logits.T).T, optimum_error)

    @property
    def scale(self) -> str:
        """Name what centred features were divided by: "layer" or "feature"."""
        return self.standardisation.kind

    @property
    def test_error_rate(self) -> float:
        """Fraction of wrong predictions on the test split."""
        return self._tested.error_rate

    @property
    def test_cross_entropy(self) -> float:
        """Cross-entropy of the test split in nats."""
        return self._tested.cross_entropy

    @property
    def test_logits(self) -> Tensor:
        """Logits of the test split: (K, n_test) float64."""
        return self._tested.logits

    @property
    def optimum_error(self) -> OptimumError | None:
        """Interval of the exact optimum's test error rate; None: not computed."""
        return self._tested.optimum_error

    @property
    def _tested(self) -> TestResult:
        if self.test is None:
            raise LinprobeError(
                "the probe has not been tested; expected a test split first: call "
                "tested(features, labels)"
            )
        return self.test


def proven(certificate: Certificate) -> dict[str, Any]:
    """Give the fields of a `FittedProbe` that its certificate knows."""
    return {
        "objective": certificate.objective,
        "duality_gap": certificate.duality_gap,
        "grad_norm": certificate.grad_norm,
        "bias_residual": certificate.bias_residual,
        "train_error_rate": certificate.error_rate,
        "train_cross_entropy": certificate.cross_entropy,
    }


class ProbeMethod(Protocol):
    """One kind of probe, with its settings."""

    def prepare(
        self, features: FeatureMatrix, targets: Targets | None = None
    ) -> FeatureMatrix | FailedProbe:
        """Bring features to the form in which the method states its problem.

        What is prepared once serves several fits, such as those of controls. Features that are
        prepared already are returned as they are.

        Args:
            features: (n_train, n_features).
            targets: of the rows, for their weights; None: all rows count the same.
        """
        ...

    def fit(
        self, features: FeatureMatrix, targets: Targets, on_solve: OnSolve | None = None
    ) -> FittedProbe | FailedProbe:
        """Fit to training rows, prepared or not, and certify; the test split is not needed."""
        ...
