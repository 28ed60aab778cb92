"""What the report's page needs of a record, as JSON types: the page computes nothing.

Text stays as it is here. The page sets it as text, never as markup.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from linprobe.records.codec import to_json
from linprobe.records.evidence import Evaluation
from linprobe.records.schema import CheckpointRecord, ProbeRecord, RunRecord
from linprobe.report import wording
from linprobe.report.references import Reference, optimum_is_close, references
from linprobe.report.style import OPTIMUM_LABEL, PROBE_LOOKS

_MAX_CELLS = 100_000  # of all confusion matrices, so that the page stays below its size
_MOST_CONFUSED = 5
_DIGITS = 6  # significant ones, more than the page ever shows

_SPLITS = ("test", "train")  # of the first two measures

_Read = Callable[[ProbeRecord], float | None]


def _of_evaluation(read: Callable[[Evaluation], float | None]) -> _Read:
    return lambda probe: read(probe.evaluation) if probe.evaluation else None


# What can be drawn: where it is found, its name, its axis.
_MEASURES: tuple[tuple[_Read, str, str], ...] = (
    (lambda probe: probe.test_error_rate, "test error", "test prediction error"),
    (lambda probe: probe.train_error_rate, "training error", "training prediction error"),
    (
        lambda probe: probe.test_cross_entropy,
        "test cross-entropy",
        "test cross-entropy (nats)",
    ),
    (
        _of_evaluation(lambda found: found.v_information_bits),
        "V-information",
        "V-information (bits)",
    ),
    (
        _of_evaluation(lambda found: found.mdl.compression if found.mdl else None),
        "compression by MDL",
        "compression of the labels (uniform code / MDL)",
    ),
    (
        _of_evaluation(lambda found: found.ece),
        "calibration error",
        "expected calibration error",
    ),
)

_FACTS: dict[str, Callable[[Evaluation], float | None]] = {
    "samples that the certificate leaves open": lambda found: found.num_undecided,
    "V-information, bits": lambda found: found.v_information_bits,
    "label entropy, bits": lambda found: found.prior_entropy_bits,
    "MDL, bits": lambda found: found.mdl.bits if found.mdl else None,
    "Brier score": lambda found: found.brier,
    "calibration error (ECE)": lambda found: found.ece,
    "top-2 error": lambda found: found.top_k_error_rate.get("2"),
    "top-3 error": lambda found: found.top_k_error_rate.get("3"),
    "top-5 error": lambda found: found.top_k_error_rate.get("5"),
    "area under the ROC curve": lambda found: found.auroc,
}


def payload(run: RunRecord) -> dict[str, Any]:
    """Everything that the page shows of checkpoints and probes.

    Probe points are numbered over all checkpoints, so a layer keeps its place on the axis.
    """
    layers: dict[str, int] = {}
    for checkpoint in run.checkpoints:
        for probe in checkpoint.probes:
            layers.setdefault(probe.layer, len(layers))
    cells = sum(
        len(probe.evaluation.confusion) ** 2
        for checkpoint in run.checkpoints
        for probe in checkpoint.probes
        if probe.evaluation
    )
    skip = run.config.experiment.skip_layer
    content = {
        "layers": list(layers),
        "short": wording.short_names(list(layers), 22),
        "mark": "QUICK RUN" if run.quick else None,
        "optimum": {"label": OPTIMUM_LABEL, "shown": optimum_is_close(run.checkpoints)},
        "classes": run.dataset.classes,
        "skip": None if skip is None else layers.get(skip),
        "measures": [
            {"label": label, "axis": axis, "floor": floor}
            for _, label, axis, floor in _measures(run)
        ],
        "facts": list(_FACTS),
        "looks": {standing: asdict(look) for standing, look in PROBE_LOOKS.items()},
        "passes": wording.passes(run),
        "checkpoints": [
            _checkpoint(run, checkpoint, layers, matrices=cells <= _MAX_CELLS)
            for checkpoint in run.checkpoints
        ],
    }
    result = _rounded(to_json(content))
    assert isinstance(result, dict)
    return result


def _rounded(value: Any) -> Any:
    """The same without digits that nobody sees, which would be most of the page's own size."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.{_DIGITS - 1}e}") if isinstance(value, float) else value


def _measures(run: RunRecord) -> Iterator[tuple[_Read, str, str, float]]:
    """Those that the run has, with the least value that a logarithmic scale can show."""
    probes = [probe for checkpoint in run.checkpoints for probe in checkpoint.probes]
    for number, (read, label, axis) in enumerate(_MEASURES):
        if number == 0 or any(read(probe) is not None for probe in probes):
            floor = wording.least_rate(run, _SPLITS[number]) if number < 2 else 1e-5
            yield read, label, axis, floor


def _checkpoint(
    run: RunRecord, checkpoint: CheckpointRecord, layers: dict[str, int], *, matrices: bool
) -> dict[str, Any]:
    tol = wording.tolerance(run)
    reads = [read for read, *_ in _measures(run)]
    steps = {item.to_layer: item for item in checkpoint.steps}
    probes = []
    for probe in checkpoint.probes:
        step = steps.get(probe.layer)
        words = {
            "certificate": wording.certificate(probe, tol),
            "verdict": step.verdict if step else None,
            "step": wording.step(step) if step else None,
            "after": layers.get(step.from_layer) if step else None,
            "values": [read(probe) for read in reads],
        }
        content = _probe(probe, layers[probe.layer]) | words
        if probe.evaluation:
            content["evaluation"] = _evaluation(probe.evaluation, matrices=matrices)
        probes.append(content)
    return {
        "name": checkpoint.name,
        "label": wording.state(checkpoint),
        "steps": wording.steps_summary(checkpoint.steps),
        "probes": probes,
        "references": [_reference(found, layers) for found in references(run, checkpoint)],
    }


def _probe(probe: ProbeRecord, place: int) -> dict[str, Any]:
    found = probe.evaluation
    return {
        "place": place,
        "width": probe.num_features,
        "reducer": probe.reducer,
        "l2": probe.l2,
        "edge": probe.l2_at_edge,
        "standing": probe.standing,
        "gap": probe.duality_gap,
        "passes": probe.num_passes,
        "seconds": probe.seconds,
        "test": probe.test_error_rate,
        "interval": probe.test_error_ci95,
        "optimum": found.optimum_error_interval if found else None,
        "train": probe.train_error_rate,
    }


def _evaluation(found: Evaluation, *, matrices: bool) -> dict[str, Any]:
    """Class-wise results; of many large matrices only the most frequent mistakes."""
    mistakes = sorted(
        (
            (count, true, predicted)
            for true, row in enumerate(found.confusion)
            for predicted, count in enumerate(row)
            if count and true != predicted
        ),
        key=lambda item: (-item[0], item[1:]),
    )
    return {
        "confusion": found.confusion if matrices else None,
        "mistakes": mistakes[:_MOST_CONFUSED],
        "classErrors": found.per_class_error_rate if matrices else None,
        "facts": [read(found) for read in _FACTS.values()],
    }


def _reference(found: Reference, layers: dict[str, int]) -> dict[str, Any]:
    return {
        "label": found.look.label,
        "colour": found.look.colour,
        "dash": found.look.dash,
        "marker": found.look.marker,
        "value": found.value,
        "points": [
            {
                "place": layers[point.layer],
                "value": point.value,
                "low": point.low,
                "high": point.high,
                "draws": point.draws,
                "selectivity": point.selectivity,
            }
            for point in found.points
        ],
    }
