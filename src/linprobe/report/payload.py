"""What the report's page needs of a record, as JSON types: the page computes nothing.

Text stays as it is here, but in the traces of `linprobe.report.interactive`. The page sets it as
text, never as markup.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from linprobe.records.codec import to_json
from linprobe.records.evidence import Evaluation
from linprobe.records.schema import CheckpointRecord, ProbeRecord, RunRecord
from linprobe.report import interactive, wording
from linprobe.report.building import build_chart, probe_note
from linprobe.report.chart import Chart, Role, fitting_scale
from linprobe.report.measures import Measure, measures
from linprobe.report.style import OPTIMUM, OTHERS, SOLID, Look
from linprobe.report.wording import plain, scientific, span, whole

_MAX_CELLS = 100_000  # of all confusion matrices, so that the page stays below its size
_MOST_CONFUSED = 5
_DIGITS = 6  # significant ones, more than the page ever shows
_KEY_ORDER: tuple[Role, ...] = ("probes", "lost", "curve", "optimum", "reference")
_TOGGLES = {OPTIMUM: "optimum", OTHERS: "others"}  # of the page, which hide entries of the key

Json = dict[str, Any]


def payload(run: RunRecord) -> Json:
    """Everything that the page shows of checkpoints and probes; "key" is for the page's HTML.

    Probe points are numbered over all checkpoints, so a layer keeps its place on the axis.
    """
    probes = [probe for checkpoint in run.checkpoints for probe in checkpoint.probes]
    layers = list(dict.fromkeys(probe.layer for probe in probes))
    cells = sum(len(p.evaluation.confusion) ** 2 for p in probes if p.evaluation)
    drawn = [
        [build_chart(run, checkpoint, measure, layers) for checkpoint in run.checkpoints]
        for measure in measures(run)
    ]
    key = _key([chart for charts in drawn for chart in charts], several=len(run.checkpoints) > 1)
    content = {
        "layers": layers,
        "classes": run.dataset.classes,
        "frame": _frame(run, drawn[0]) if layers else None,
        "optimum": any(chart.optimum_is_close for chart in drawn[0]),
        "best": layers.index(best.layer) if (best := wording.best_probe(run)) else None,
        "measures": [
            _measure(run, measure, charts)
            for measure, charts in zip(measures(run), drawn, strict=True)
        ],
        "columns": _columns(run),
        "facts": [name.replace("passes", wording.passes(run)) for name in _FACTS],
        "checkpoints": [
            {
                "label": wording.state(checkpoint),
                "steps": wording.steps_summary(checkpoint.steps),
                "beside": [series.look.label for series in drawn[0][i].of("reference")],
                "figures": [_figure(charts[i], key) for charts in drawn],
                "probes": [
                    _probe(run, checkpoint, probe, drawn[0][i], matrices=cells <= _MAX_CELLS)
                    for probe in checkpoint.probes
                ],
            }
            for i, checkpoint in enumerate(run.checkpoints)
        ],
        "key": [
            {"label": label, "swatch": interactive.swatch(look), "toggle": _TOGGLES.get(look, "")}
            for label, look in key.items()
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
    if isinstance(value, float):
        return int(value) if value.is_integer() else float(f"{value:.{_DIGITS - 1}e}")
    return value


def _frame(run: RunRecord, charts: list[Chart]) -> Json:
    """What all charts share; names of layers for a wide and for a narrow window."""
    count = len(charts[0].layers)
    wide, narrow = (18, 5) if count > 12 else (46, 13)
    return {
        "heads": [interactive.label_head(layer) for layer in charts[0].layers],
        "layout": interactive.layout(charts[0], mark="QUICK RUN" if run.quick else None),
        "log": interactive.log_axis(),
        "selection": interactive.selection(),
        "ticks": [
            interactive.layer_ticks(charts[0].layers, wide, turned=count > 5),
            interactive.layer_ticks(charts[0].layers, narrow, turned=True),
        ],
    }


def _measure(run: RunRecord, measure: Measure, charts: list[Chart]) -> Json:
    return {
        "label": measure.label,
        "axis": measure.axis,
        "floor": measure.floor(run),
        "log": fitting_scale(charts) == "log",
        "others": [
            interactive.other_curve(chart, checkpoint.name, above=i % 2 == 0)
            for i, (chart, checkpoint) in enumerate(zip(charts, run.checkpoints, strict=True))
        ],
    }


def _key(charts: Sequence[Chart], *, several: bool) -> dict[str, Look]:
    """Looks of all series that have a name, the probes first, with the points' line."""
    found: dict[str, Look] = {}
    for role in _KEY_ORDER:
        for series in (series for chart in charts for series in chart.of(role)):
            line = SOLID if role == "probes" else series.look.dash
            found.setdefault(series.label, replace(series.look, dash=line))
    if several:
        found[OTHERS.label] = OTHERS
    return {label: look for label, look in found.items() if label}


def _figure(chart: Chart, key: dict[str, Look]) -> Json:
    """Traces, and the numbers of their entries in the key."""
    labels = {series.label for series in chart.series} | {OTHERS.label}
    numbers = [number for number, label in enumerate(key) if label in labels]
    return {"traces": interactive.traces(chart), "key": numbers}


_COLUMNS = (
    *(("layer", "layer"), ("test", "test error"), ("interval", "95 % interval")),
    *(("verdict", "step"), ("measure", ""), ("train", "train error"), ("width", "width")),
    *(("l2", "l2"), ("gap", "gap, nats"), ("passes", "passes"), ("certificate", "certificate")),
)


def _columns(run: RunRecord) -> list[Json]:
    """Columns of the table, in the order of `_cells`; the page fills in the first and "measure"."""
    steps = any(checkpoint.steps for checkpoint in run.checkpoints)
    left = ("layer", "verdict", "certificate")
    return [
        {
            "key": name,
            "label": wording.passes(run) if name == "passes" else label,
            "left": name in left,
            "hidden": name == "verdict" and not steps,
        }
        for name, label in _COLUMNS
    ]


def _probe(
    run: RunRecord,
    checkpoint: CheckpointRecord,
    probe: ProbeRecord,
    chart: Chart,
    *,
    matrices: bool,
) -> Json:
    step = next((item for item in checkpoint.steps if item.to_layer == probe.layer), None)
    place = chart.layers.index(probe.layer)
    values = [measure.read(probe) for measure in measures(run)]
    tol = wording.tolerance(run)
    found = probe.evaluation
    return {
        "place": place,
        "failed": probe.standing == "failed",
        "certificate": wording.certificate(probe, tol),
        "cells": _cells(probe, step.verdict if step else None, tol),
        "values": [[value, plain(value)] for value in values],
        "facts": [read(probe) for read in _FACTS.values()],
        "note": interactive.broken(probe_note(run, probe)),
        "step": f"Against {step.from_layer}, the layer before: {wording.step(step)}."
        if step
        else None,
        "beside": list(_beside(chart, place)),
        **(_confusion(run, found, matrices=matrices) if found else {}),
    }


def _cells(probe: ProbeRecord, verdict: str | None, tol: float | None) -> list[tuple[Any, str]]:
    """Of each column a value to sort by, and a text."""
    return [
        (None, ""),
        (probe.test_error_rate, plain(probe.test_error_rate)),
        (probe.test_error_ci95[0], span(probe.test_error_ci95)),
        (verdict, verdict or ""),
        (None, ""),
        (probe.train_error_rate, plain(probe.train_error_rate)),
        (probe.num_features, whole(probe.num_features)),
        (probe.l2, scientific(probe.l2, 0) + " (end)" * probe.l2_at_edge),
        (probe.duality_gap, scientific(probe.duality_gap)),
        (probe.num_passes, whole(probe.num_passes)),
        (probe.standing, wording.short_certificate(probe, tol)),
    ]


def _number(
    read: Callable[[Evaluation], float | None], write: Callable[[float], str] = plain
) -> Callable[[ProbeRecord], str | None]:
    def text(probe: ProbeRecord) -> str | None:
        value = read(probe.evaluation) if probe.evaluation else None
        return None if value is None else write(value)

    return text


def _optimum(probe: ProbeRecord) -> str | None:
    found = probe.evaluation.optimum_error_interval if probe.evaluation else None
    return span(found) if found else None


def _width(probe: ProbeRecord) -> str:
    return whole(probe.num_features) + (f", reduced: {probe.reducer}" if probe.reducer else "")


_FACTS: dict[str, Callable[[ProbeRecord], str | None]] = {
    "test error": lambda probe: plain(probe.test_error_rate),
    "95 % interval": lambda probe: span(probe.test_error_ci95),
    OPTIMUM.label: _optimum,
    "training error": lambda probe: plain(probe.train_error_rate),
    "width": _width,
    "l2": lambda probe: scientific(probe.l2, 0) + ", end of the path" * probe.l2_at_edge,
    "passes over the features": lambda probe: whole(probe.num_passes),
    "samples that the certificate leaves open": _number(lambda found: found.num_undecided, whole),
    "V-information, bits": _number(lambda found: found.v_information_bits),
    "label entropy, bits": _number(lambda found: found.prior_entropy_bits),
    "MDL, bits": _number(lambda found: found.mdl.bits if found.mdl else None, whole),
    "Brier score": _number(lambda found: found.brier),
    "calibration error (ECE)": _number(lambda found: found.ece),
    "top-2 error": _number(lambda found: found.top_k_error_rate.get("2")),
    "top-3 error": _number(lambda found: found.top_k_error_rate.get("3")),
    "top-5 error": _number(lambda found: found.top_k_error_rate.get("5")),
    "area under the ROC curve": _number(lambda found: found.auroc),
}


def _beside(chart: Chart, place: int) -> Iterator[str | None]:
    """What each reference of the curve has at a layer, for those who can't point at it."""
    for series in chart.of("reference"):
        found = [point for point in series.points if point.place == place]
        if series.value is not None:
            yield plain(series.value)
        else:
            yield ", ".join([plain(found[0].value), *found[0].note]) if found else None


def _confusion(run: RunRecord, found: Evaluation, *, matrices: bool) -> Json:
    """Class-wise results; of many large matrices only the most frequent mistakes."""
    classes = run.dataset.classes or ()
    mistakes = sorted(
        (-count, true, predicted)
        for true, row in enumerate(found.confusion)
        for predicted, count in enumerate(row)
        if count and true != predicted
    )

    def name(number: int) -> str:
        return classes[number] if number < len(classes) else str(number)

    return {
        "confusion": found.confusion if matrices else None,
        "classErrors": [plain(rate) for rate in found.per_class_error_rate] if matrices else None,
        "mistakes": [
            f"{name(true)} \N{RIGHTWARDS ARROW} {name(predicted)} ({-count:,})"
            for count, true, predicted in mistakes[:_MOST_CONFUSED]
        ],
    }
