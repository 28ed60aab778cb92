"""Records of a run: frozen dataclasses that are the one source of tables, figures and reports.

`RunRecord` mirrors ``results.json`` (schema 2): the JSON keys are the field names.
`linprobe.records.store` saves and loads it, `linprobe.records.evidence` holds what stands beside a
probe's error rate.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from linprobe.records.codec import Number
from linprobe.records.config import RunConfig
from linprobe.records.evidence import (
    ControlRecord,
    DepthStep,
    Evaluation,
    MetricRecord,
    MetricStep,
)
from linprobe.runtime.errors import LinprobeError

CONVERGED = "converged"
AS_TRAINED = ("early_stop", "epoch_limit")
PROBE = "probe"
"""`RunRecord.experiment` of probes of a user's own network or features."""

Standing = Literal["certified", "trained", "failed"]

Split = Literal["test", "train"]
"""The split that error rates are measured on."""


@dataclass(frozen=True)
class TriedPenalty:
    """One penalty of a probe's path, solved on the rows that were not held out.

    Attributes:
        l2: the penalty.
        validation_cross_entropy: of the held-out rows, nats.
        standard_error: over the held-out rows, of the difference from the chosen penalty in what
            chose it: cross-entropy or, where the method has `choose_by` so, error rate.
        status: of the solve, "near" where the minimum was estimated to be near enough for a
            comparison; one that failed beyond the ends of the default path could not be chosen.
        num_rows: that it was solved on, where those were a part of the rows that are read from a
            disk, which told where to look; None: all.
        validation_error_rate: of the held-out rows; NaN: unknown.
    """

    l2: Number
    validation_cross_entropy: Number
    standard_error: Number
    status: str
    num_rows: int | None = None
    validation_error_rate: Number = math.nan


@dataclass(frozen=True)
class ProbeRecord:
    """One probe of one layer; error rates are fractions, cross-entropies nats.

    A number that is unknown is NaN: all of them are where the probe could not be fitted.

    Attributes:
        layer: name of the probe point.
        index: place of the probe point along the network, from 0.
        num_features: D.
        reducer: how the layer was made smaller before probing; None: not at all.
        l2: the penalty chosen on held-out training samples; by protocol "sgd", which has none,
            the one that the certificate is for.
        l2_at_edge: the path ended at the choice, though the held-out cross-entropy (or error rate,
            if that chose) still fell by more than its noise: a better one may lie beyond. In runs
            that have no `path`, the choice stands at an end of the path.
        status: "converged", or why not; by protocol "sgd" what ended the training.
        duality_gap: certified bound on the distance of `objective` from its minimum, nats.
        test_error_ci95: Wilson interval of the test error rate.
        num_passes: readings of all features, for the whole path and the refit; epochs where the
            probe was trained by minibatches.
        evaluation: what the test probabilities show; None: not computed.
        rounded: of what varies in the activations, or of what the probe uses of that, too much may
            be their own rounding: 1 % of all that varies (10 % in 16 bits), or at the probe's
            weight more than 2e-4 nats of cross-entropy (.05 in 16 bits).
        dtype: that the activations were computed in, such as "float32"; None: unknown. Another
            than the network's own where `native` is known.
        reason: why no probe could be fitted; None: one was.
        scale: what centred features were divided by: "layer", one number; "feature", each column
            its own deviation; None: unknown.
        float32_changes: test predictions that weight and bias, rounded to float32 with the raw
            features, give otherwise; None: unknown.
        missing: what was asked for beside the probe and could not be computed, and why.
        native: the probe of the activations in the network's own dtype, which is `rounded`, so that
            this probe is of a pass in float64; None: this probe is it.
        no_float64: why the activations of a `rounded` probe were not read in float64; None: they
            were, or need not be, or that was not to be tried.
        path: the penalties tried, from large to small; empty: unknown.
    """

    layer: str
    index: int
    num_features: int
    reducer: str | None
    l2: Number = math.nan
    l2_at_edge: bool = False
    status: str = field(kw_only=True)
    objective: Number = math.nan
    duality_gap: Number = math.nan
    grad_norm: Number = math.nan
    bias_residual: Number = math.nan
    train_error_rate: Number = math.nan
    validation_error_rate: Number = math.nan
    test_error_rate: Number = math.nan
    test_error_ci95: tuple[Number, Number] = (math.nan, math.nan)
    train_cross_entropy: Number = math.nan
    validation_cross_entropy: Number = math.nan
    test_cross_entropy: Number = math.nan
    num_passes: Number = math.nan
    seconds: Number = math.nan
    evaluation: Evaluation | None = None
    rounded: bool = False
    dtype: str | None = None
    reason: str | None = None
    scale: str | None = None
    float32_changes: int | None = None
    missing: str | None = None
    native: "ProbeRecord | None" = None
    no_float64: str | None = None
    path: tuple[TriedPenalty, ...] = ()

    @property
    def converged(self) -> bool:
        """True if the certificate is within the tolerance that was asked for."""
        return self.status == CONVERGED

    def error_rate(self, split: Split) -> float:
        """Return the error rate on that split."""
        return self.test_error_rate if split == "test" else self.train_error_rate

    def metric(self, name: str) -> float:
        """Return a metric by its name; NaN: unknown."""
        return self.evaluation.metrics.get(name, math.nan) if self.evaluation else math.nan

    def metric_interval(self, name: str) -> tuple[float, float]:
        """Return the 95 % interval of a metric by its name; NaN: unknown."""
        known = self.evaluation.metric_intervals if self.evaluation else {}
        return known.get(name, (math.nan, math.nan))

    @property
    def standing(self) -> Standing:
        """Trust that it deserves: "trained" by minibatches, no optimum was asked for."""
        if self.converged:
            return "certified"
        return "trained" if self.status in AS_TRAINED else "failed"


@dataclass(frozen=True)
class CheckpointRecord:
    """All probes of one state of the network.

    Attributes:
        name: such as "untrained".
        step: training minibatches before it.
        network_test_error_rate: of the network's own output, dropout off.
        stages: seconds of each stage: "train", "extract", "solve", "evaluate".
        probes: in the order of the probe points.
        steps: paired comparison of each probe point with the next.
        controls: what the curve is to be compared with.
        metric_steps: such comparisons of metrics, metric after metric.
    """

    name: str
    step: int
    network_test_error_rate: Number
    stages: dict[str, Number]
    probes: tuple[ProbeRecord, ...]
    steps: tuple[DepthStep, ...] = ()
    controls: tuple[ControlRecord, ...] = ()
    metric_steps: tuple[MetricStep, ...] = ()

    @property
    def test_errors(self) -> dict[str, float]:
        """Test error rate of each layer."""
        return {probe.layer: probe.test_error_rate for probe in self.probes}


@dataclass(frozen=True)
class MajorityErrorRate:
    """Error rate of the majority-class baseline, which says the commonest training label."""

    train: Number
    test: Number

    def error_rate(self, split: Split) -> float:
        """Return the error rate on that split."""
        return self.test if split == "test" else self.train


@dataclass(frozen=True)
class DatasetRecord:
    """The data that a run probed.

    Attributes:
        name: such as "mnist", or how the data came: "arrays", "tensors".
        num_train: training samples, with those held out.
        num_test: test samples.
        sha256: of each file, by its name.
        majority_error_rate: None: unknown.
        majority_metrics: metrics of the same baseline on the test set, by name; NaN: it has none.
        classes: their names; None: unknown.
    """

    name: str
    num_train: int
    num_test: int
    sha256: dict[str, str] = field(default_factory=dict)
    majority_error_rate: MajorityErrorRate | None = None
    classes: tuple[str, ...] | None = None
    majority_metrics: dict[str, Number] = field(default_factory=dict)


@dataclass(frozen=True)
class EnvironmentRecord:
    """Versions and hardware, see `linprobe.records.environment.environment`."""

    linprobe: str
    torch: str
    python: str
    cpu: str
    threads: int
    device: str


@dataclass(frozen=True)
class RunRecord:
    """One run of one experiment; grows by `with_checkpoint`, so it can be saved at each.

    Attributes:
        experiment: such as "fig5"; `PROBE` for a user's own network or features.
        protocol: "certified", or "sgd" where probes are trained by minibatches, for comparison.
        quick: fewer samples and steps than the experiment asks for: not a result.
        config: what was asked for.
        dataset: what was probed.
        environment: what it was computed with.
        seconds: wall time from start to the last checkpoint.
        peak_rss_bytes: largest memory of the process until then.
        complete: whether every checkpoint that the experiment asks for is there.
        metrics: what the numbers in `Evaluation.metrics` are.
    """

    experiment: str
    protocol: str
    seed: int
    quick: bool
    config: RunConfig
    dataset: DatasetRecord
    environment: EnvironmentRecord
    seconds: Number
    peak_rss_bytes: int
    complete: bool
    checkpoints: tuple[CheckpointRecord, ...]
    metrics: tuple[MetricRecord, ...] = ()

    @property
    def is_experiment(self) -> bool:
        """True for an experiment of the paper, false for a probe of a user's own network."""
        return self.experiment != PROBE

    def with_checkpoint(
        self,
        checkpoint: CheckpointRecord,
        *,
        seconds: float,
        peak_rss_bytes: int,
        complete: bool = False,
    ) -> "RunRecord":
        """Return a copy with one checkpoint more, whose name must be new (`LinprobeError`)."""
        if any(known.name == checkpoint.name for known in self.checkpoints):
            raise LinprobeError(
                f"the run has a checkpoint {checkpoint.name!r} already; expected a new name"
            )
        more = replace(self, checkpoints=(*self.checkpoints, checkpoint), complete=complete)
        return replace(more, seconds=seconds, peak_rss_bytes=peak_rss_bytes)

    def checkpoint(self, name: str) -> CheckpointRecord:
        """Return the checkpoint of that name, or raise `LinprobeError`: there is none."""
        for checkpoint in self.checkpoints:
            if checkpoint.name == name:
                return checkpoint
        names = ", ".join(c.name for c in self.checkpoints) or "none yet"
        raise LinprobeError(f"the run has no checkpoint {name!r}; it has: {names}")

    @property
    def stages(self) -> dict[str, float]:
        """Seconds of each stage, summed over checkpoints."""
        parts = [checkpoint.stages for checkpoint in self.checkpoints]
        names = dict.fromkeys(name for part in parts for name in part)
        return {name: sum(part.get(name, 0.0) for part in parts) for name in names}
