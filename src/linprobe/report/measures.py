"""The numbers of a probe that a curve can show."""

from collections.abc import Callable
from dataclasses import dataclass

from linprobe.records.evidence import Evaluation
from linprobe.records.schema import ProbeRecord, RunRecord, Split
from linprobe.report.wording import least_rate


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
    read: Callable[[ProbeRecord], float | None]
    split: Split | None = None

    def floor(self, run: RunRecord) -> float:
        """The least value that a logarithmic scale shows."""
        return least_rate(run, self.split) if self.split else 1e-5


def _of_evaluation(read: Callable[[Evaluation], float | None]) -> Callable[..., float | None]:
    return lambda probe: read(probe.evaluation) if probe.evaluation else None


TEST_ERROR = Measure(
    "test error", "test prediction error", lambda probe: probe.test_error_rate, "test"
)
TRAIN_ERROR = Measure(
    "training error", "training prediction error", lambda probe: probe.train_error_rate, "train"
)
V_INFORMATION = Measure(
    "V-information",
    "V-information (bits)",
    _of_evaluation(lambda found: found.v_information_bits),
)
MEASURES = (
    TEST_ERROR,
    TRAIN_ERROR,
    Measure(
        "test cross-entropy",
        "test cross-entropy (nats)",
        lambda probe: probe.test_cross_entropy,
    ),
    V_INFORMATION,
    Measure(
        "compression by MDL",
        "compression of the labels (uniform code / MDL)",
        _of_evaluation(lambda found: found.mdl.compression if found.mdl else None),
    ),
    Measure(
        "calibration error",
        "expected calibration error",
        _of_evaluation(lambda found: found.ece),
    ),
)


ERRORS: dict[Split, Measure] = {"test": TEST_ERROR, "train": TRAIN_ERROR}


def measures(run: RunRecord) -> list[Measure]:
    """List the measures that some probe of the run has; the test error is always there."""
    probes = [probe for checkpoint in run.checkpoints for probe in checkpoint.probes]
    return [
        item
        for item in MEASURES
        if item is TEST_ERROR or any(item.read(probe) is not None for probe in probes)
    ]
