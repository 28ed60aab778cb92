"""What the report's page needs of a record, as JSON types: the page computes nothing.

Text stays as it is here. The page sets it as text, never as markup.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from linprobe.evidence import ControlRecord, Evaluation
from linprobe.report import wording
from linprobe.report.style import CONTROLS, NETWORK, Look
from linprobe.results import CheckpointRecord, ProbeRecord, RunRecord
from linprobe.serial import to_json

_MAX_CELLS = 100_000  # of all confusion matrices, so that the page stays below its size
_MOST_CONFUSED = 5
_DIGITS = 6  # significant ones, more than the page ever shows

_MEASURES = (
    ("test_error_rate", "test error", "test prediction error"),
    ("train_error_rate", "training error", "training prediction error"),
    ("test_cross_entropy", "test cross-entropy", "test cross-entropy (nats)"),
    ("v_information_bits", "V-information", "V-information (bits)"),
    ("compression", "compression by MDL", "compression of the labels (uniform code / MDL)"),
    ("ece", "calibration error", "expected calibration error"),
)


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
        "short": [wording.shorten(layer, 22) for layer in layers],
        "skip": layers.get(skip) if isinstance(skip, str) else None,
        "measures": list(_measures(run)),
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


def _measures(run: RunRecord) -> Iterator[dict[str, str]]:
    """Those that the run has."""
    probes = [probe for checkpoint in run.checkpoints for probe in checkpoint.probes]
    for key, label, axis in _MEASURES:
        if any(_values(probe)[key] is not None for probe in probes):
            yield {"key": key, "label": label, "axis": axis}


def _values(probe: ProbeRecord) -> dict[str, float | None]:
    found = probe.evaluation
    values: dict[str, float | None] = {
        "test_error_rate": probe.test_error_rate,
        "train_error_rate": probe.train_error_rate,
        "test_cross_entropy": probe.test_cross_entropy,
        "v_information_bits": found.v_information_bits if found else None,
        "compression": found.mdl.compression if found and found.mdl else None,
        "ece": found.ece if found else None,
    }
    return values


def _checkpoint(
    run: RunRecord, checkpoint: CheckpointRecord, layers: dict[str, int], *, matrices: bool
) -> dict[str, Any]:
    tol = wording.tolerance(run)
    steps = {item.to_layer: item for item in checkpoint.steps}
    probes = []
    for probe in checkpoint.probes:
        step = steps.get(probe.layer)
        words = {
            "certificate": wording.certificate(probe, tol),
            "verdict": step.verdict if step else None,
            "step": wording.step(step) if step else None,
            "after": step.from_layer if step else None,
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
        "interval": probe.test_error_ci95,
        "optimum": found.optimum_error_interval if found else None,
        "values": _values(probe),
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
    facts = {
        "Brier score": found.brier,
        "calibration error (ECE)": found.ece,
        **{f"top-{k} error": rate for k, rate in found.top_k_error_rate.items()},
        "area under the ROC curve": found.auroc,
        "V-information, bits": found.v_information_bits,
        "label entropy, bits": found.prior_entropy_bits,
        "MDL, bits": found.mdl.bits if found.mdl else None,
    }
    return {
        "confusion": found.confusion if matrices else None,
        "mistakes": mistakes[:_MOST_CONFUSED],
        "classErrors": found.per_class_error_rate if matrices else None,
        "facts": [[name, value] for name, value in facts.items() if value is not None],
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
