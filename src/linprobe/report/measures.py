"""The numbers of a probe that a curve can show."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from linprobe.records.evidence import ERROR_RATE, DepthStep, Evaluation, MetricRecord, MetricStep
from linprobe.records.schema import CheckpointRecord, ProbeRecord, RunRecord, Split
from linprobe.report.wording import least_rate, plain
from linprobe.runtime.errors import LinprobeError

Read = Callable[[ProbeRecord], float | None]


def evaluated(read: Callable[[Evaluation], float | None]) -> Read:
    """Read a number of the evaluation; None where there is no evaluation."""
    return lambda probe: read(probe.evaluation) if probe.evaluation else None


@dataclass(frozen=True)
class Measure:
    """One number of a probe that a curve can show.

    Attributes:
        label: its name.
        axis: its name with its unit.
        read: takes it from a probe; None or NaN: unknown.
        split: of an error rate, whose least value is half a sample on a logarithmic scale.
        interval: takes its 95 % interval from a probe.
        metric: that it is; None: it is something else.
    """

    label: str
    axis: str
    read: Read
    split: Split | None = None
    interval: Callable[[ProbeRecord], tuple[float, float]] = lambda probe: (math.nan, math.nan)
    metric: MetricRecord | None = None

    def floor(self, run: RunRecord) -> float:
        """Give the least value that a logarithmic scale shows."""
        return least_rate(run, self.split) if self.split else 1e-5

    def steps(self, checkpoint: CheckpointRecord) -> Sequence[DepthStep | MetricStep]:
        """List its comparisons of neighbouring layers; none where they are not tested."""
        if self.metric is None:
            return checkpoint.steps if self.split == "test" else ()
        return [step for step in checkpoint.metric_steps if step.metric == self.metric.name]

    def best(self, run: RunRecord) -> ProbeRecord | None:
        """Find the best probe at the last checkpoint; None: no value is known."""
        probes = run.checkpoints[-1].probes if run.checkpoints else ()
        known = [(value, p) for p in probes if math.isfinite(value := self.value(p))]
        choose = max if self.metric and self.metric.higher_is_better else min
        return choose(known, key=lambda item: item[0])[1] if known else None

    def value(self, probe: ProbeRecord) -> float:
        """Take it from a probe; NaN: unknown."""
        value = self.read(probe)
        return math.nan if value is None else value


ERRORS: dict[Split, Measure] = {
    "test": Measure(
        *("test error", "test prediction error", lambda p: p.test_error_rate, "test"),
        interval=lambda p: p.test_error_ci95,
    ),
    "train": Measure(
        "training error", "training prediction error", lambda p: p.train_error_rate, "train"
    ),
}
TEST_ERROR, TRAIN_ERROR = ERRORS["test"], ERRORS["train"]
CROSS_ENTROPY = Measure(
    "test cross-entropy", "test cross-entropy (nats)", lambda p: p.test_cross_entropy
)
V_INFORMATION = Measure(
    "V-information", "V-information (bits)", evaluated(lambda found: found.v_information_bits)
)
COMPRESSION = Measure(
    "compression by MDL",
    "compression of the labels (uniform code / MDL)",
    evaluated(lambda found: found.mdl.compression if found.mdl else None),
)
CALIBRATION = Measure(
    "calibration error", "expected calibration error", evaluated(lambda found: found.ece)
)
MEASURES = (TEST_ERROR, TRAIN_ERROR, CROSS_ENTROPY, V_INFORMATION, COMPRESSION, CALIBRATION)


def measures(run: RunRecord) -> list[Measure]:
    """List the measures that some probe of the run has; the test error is always there."""
    probes = [probe for checkpoint in run.checkpoints for probe in checkpoint.probes]
    every = (*MEASURES, *map(of_metric, run.metrics))
    known = (any(math.isfinite(item.value(probe)) for probe in probes) for item in every)
    return [i for i, has in zip(every, known, strict=True) if has or i is TEST_ERROR]


def of_metric(metric: MetricRecord) -> Measure:
    """Make the measure of a metric of the run."""
    name = metric.name
    return Measure(
        *(metric.label, metric.label, lambda probe: probe.metric(name)),
        interval=lambda probe: probe.metric_interval(name),
        metric=metric,
    )


def chosen(run: RunRecord, metric: str | None) -> Measure:
    """Return what `metric` names: a metric of the run, or the test error ("error_rate" or None).

    Raises:
        LinprobeError: The run has no such metric; the message lists those it has.
    """
    if metric in (None, ERROR_RATE):
        return TEST_ERROR
    for record in run.metrics:
        if record.name == metric:
            return of_metric(record)
    known = ", ".join((ERROR_RATE, *(record.name for record in run.metrics)))
    raise LinprobeError(f"the run has no metric {metric!r}; it has: {known}")


TableColumn = tuple[str, Callable[[ProbeRecord], str]]


def table_columns(run: RunRecord, metric: str | None) -> list[TableColumn]:
    """List the metrics that a printed table has columns for beside the test error.

    It is the one that was chosen, with its interval. Without a choice, it is those that always
    have one, and where classes are imbalanced (`Evaluation.is_imbalanced`), those that show it.
    """
    measure = chosen(run, metric)
    if measure.metric is not None:
        return [_column(measure), ("95 % interval", lambda probe: _ends(measure.interval(probe)))]
    probes = (probe for checkpoint in run.checkpoints for probe in checkpoint.probes)
    imbalanced = any(p.evaluation is not None and p.evaluation.is_imbalanced for p in probes)
    wanted = (m for m in run.metrics if m.in_table or (m.of_imbalance and imbalanced))
    return [_column(of_metric(record)) for record in wanted if metric is None or record.in_table]


def _column(measure: Measure) -> TableColumn:
    return measure.label, lambda probe: plain(measure.value(probe))


def _ends(interval: tuple[float, float]) -> str:
    return "-".join(map(plain, interval)) if math.isfinite(interval[0]) else "none"
