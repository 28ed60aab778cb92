"""What the report's page needs of a record, as JSON types: the page computes nothing.

Text stays as it is here. The page sets it as text, never as markup.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from linprobe.evidence import ControlRecord, Evaluation
from linprobe.report import wording
from linprobe.report.style import CONTROLS, NETWORK, Look
from linprobe.results import CheckpointRecord, ProbeRecord, RunRecord
from linprobe.serial import to_json

_MAX_CELLS = 100_000  # of all confusion matrices, so that the page stays below its size
_MOST_CONFUSED = 5
_DIGITS = 6  # significant ones, more than the page ever shows

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
    skip = run.config.get("skip_layer")
    content = {
        "layers": list(layers),
        "short": wording.short_names(list(layers), 22),
        "mark": "QUICK RUN" if run.quick else None,
        "skip": layers.get(skip) if isinstance(skip, str) else None,
        "measures": [
            {"label": label, "axis": axis, "floor": floor}
            for _, label, axis, floor in _measures(run)
        ],
        "facts": list(_FACTS),
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
            yield read, label, axis, _floor(run, number)


def _floor(run: RunRecord, number: int) -> float:
    """Half a sample for an error rate: less than the least one that is not zero."""
    splits = ("num_test", "num_train")
    samples = run.dataset.get(splits[number]) if number < len(splits) else None
    return 0.5 / samples if isinstance(samples, int) and samples > 0 else 1e-5


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
        "state": wording.state(checkpoint),
        "steps": wording.steps_summary(checkpoint.steps),
        "probes": probes,
        "references": list(_references(run, checkpoint, layers)),
    }


def _probe(probe: ProbeRecord, place: int) -> dict[str, Any]:
    found = probe.evaluation
    return {
        "place": place,
        "width": probe.num_features,
        "reducer": probe.reducer,
        "l2": probe.l2,
        "edge": probe.l2_at_edge,
        "certified": probe.converged,
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


def _references(
    run: RunRecord, checkpoint: CheckpointRecord, layers: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """Lines beside the probes' curve: the network's own error, and the controls by name.

    Repeated draws are averaged; their range is drawn as a bar.
    """
    own = checkpoint.network_test_error_rate
    if own == own:
        yield _line(NETWORK, own)
    names = dict.fromkeys(item.name for item in checkpoint.controls)
    majority = run.dataset.get("majority_error_rate")
    rate = majority.get("test") if isinstance(majority, dict) else None
    if rate is not None and "majority" not in names:
        yield _line(CONTROLS["majority"], rate)
    for name in names:
        look = CONTROLS.get(name, Look(name, "muted", (2, 2), "o"))
        found = [item for item in checkpoint.controls if item.name == name]
        everywhere = [item for item in found if item.layer is None]
        if everywhere:
            yield _line(look, _mean(everywhere))
        places = {
            layers[item.layer]: [other for other in found if other.layer == item.layer]
            for item in found
            if item.layer in layers
        }
        if places:
            yield _series(look, places)


def _line(look: Look, value: float) -> dict[str, Any]:
    return {"label": look.label, "colour": look.colour, "dash": look.dash, "value": value}


def _series(look: Look, places: dict[int, list[ControlRecord]]) -> dict[str, Any]:
    points = [
        {
            "place": place,
            "value": _mean(found),
            "low": min(item.test_error_rate for item in found),
            "high": max(item.test_error_rate for item in found),
            "draws": len(found),
            "selectivity": _selectivity(found),
        }
        for place, found in sorted(places.items())
    ]
    return {
        "label": look.label,
        "colour": look.colour,
        "dash": look.dash,
        "marker": look.marker,
        "points": points,
    }


def _mean(found: Sequence[ControlRecord]) -> float:
    return sum(item.test_error_rate for item in found) / len(found)


def _selectivity(found: Sequence[ControlRecord]) -> float | None:
    values = [item.selectivity for item in found if item.selectivity is not None]
    return sum(values) / len(values) if values else None
