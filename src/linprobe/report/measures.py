"""The numbers of a probe that a curve can show."""

from collections.abc import Callable
from dataclasses import dataclass

from linprobe.records.evidence import Evaluation
from linprobe.records.schema import ProbeRecord, RunRecord, Split
from linprobe.report.wording import least_rate

Read = Callable[[ProbeRecord], float | None]


def evaluated(read: Callable[[Evaluation], float | None]) -> Read:
    """Read a number of the evaluation; None where there is no evaluation."""
    return lambda probe: read(probe.evaluation) if probe.evaluation else None


def metric(name: str) -> Read:
    """Read a metric of the run by its name."""
    return evaluated(lambda found: found.metrics.get(name))


@dataclass(frozen=True)
class Measure:
    """One number of a probe that a curve can show.

    Attributes:
        label: its name.
        axis: its name with its unit.
        read: takes it from a probe; None or NaN: unknown.
        split: of an error rate, whose least value is half a sample on a logarithmic scale.
    """

    label: str
    axis: str
    read: Read
    split: Split | None = None

    def floor(self, run: RunRecord) -> float:
        """Give the least value that a logarithmic scale shows."""
        return least_rate(run, self.split) if self.split else 1e-5


ERRORS: dict[Split, Measure] = {
    "test": Measure("test error", "test prediction error", lambda p: p.test_error_rate, "test"),
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
    every = (*MEASURES, *(Measure(m.label, m.label, metric(m.name)) for m in run.metrics))
    known = (any(item.read(probe) is not None for probe in probes) for item in every)
    return [i for i, has in zip(every, known, strict=True) if has or i is TEST_ERROR]
