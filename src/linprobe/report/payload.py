"""Content of the report's page from a record, as JSON types: the page computes nothing.

Text stays as it is here, but in the traces of `linprobe.report.interactive`. The page sets it as
text, never as markup.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from linprobe.records.codec import to_json
from linprobe.records.evidence import Evaluation
from linprobe.records.schema import CheckpointRecord, ProbeRecord, RunRecord
from linprobe.report import interactive, wording
from linprobe.report.building import build_chart, probe_note
from linprobe.report.chart import Chart, Role, Series, fitting_scale
from linprobe.report.measures import Measure, chosen, evaluated, measures, of_metric
from linprobe.report.style import OPTIMUM, OTHERS, SOLID, Look
from linprobe.report.wording import plain, scientific, span, whole

_MAX_CELLS = 100_000  # of all confusion matrices, so that the page stays below its size
_MOST_CONFUSED = 5
_DIGITS = 6  # significant ones, more than the page ever shows
_KEY_ORDER: tuple[Role, ...] = ("probes", "lost", "curve", "optimum", "reference")
_TOGGLES = {OPTIMUM: "optimum", OTHERS: "others"}  # of the page, which hide entries of the key

Json = dict[str, Any]


def payload(run: RunRecord, metric: str | None = None) -> Json:
    """Collect what the page shows of checkpoints and probes; "key" is for the page's HTML.

    Probe points are numbered over all checkpoints, so a layer keeps its place on the axis. The
    page begins with `metric`, by name; None: with the test error.
    """
    first, shown = chosen(run, metric), measures(run)
    labels = [measure.label for measure in shown]
    probes = [probe for checkpoint in run.checkpoints for probe in checkpoint.probes]
    layers = list(dict.fromkeys(probe.layer for probe in probes))
    cells = sum(len(p.evaluation.confusion) ** 2 for p in probes if p.evaluation)
    drawn = [
        [build_chart(run, checkpoint, measure, layers) for checkpoint in run.checkpoints]
        for measure in shown
    ]
    key = _key([chart for charts in drawn for chart in charts], several=len(run.checkpoints) > 1)
    content = {
        "layers": layers,
        "classes": run.dataset.classes,
        "frame": _frame(run, drawn[0]) if layers else None,
        "optimum": any(chart.optimum_is_close for chart in drawn[0]),
        "best": layers.index(best.layer) if (best := first.best(run)) else None,
        "first": labels.index(first.label) if first.label in labels else 0,  # else none is known
        "measures": [
            _measure(run, measure, charts) for measure, charts in zip(shown, drawn, strict=True)
        ],
        "columns": _columns(run),
        "facts": [
            *(name.replace("passes", wording.passes(run)) for name in _FACTS),
            *(item.label for item in run.metrics),
        ],
        "checkpoints": [
            _checkpoint(run, checkpoint, shown, charts, key, matrices=cells <= _MAX_CELLS)
            for checkpoint, charts in zip(run.checkpoints, zip(*drawn, strict=True), strict=True)
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
    """Drop digits that nobody sees, which would be most of the page's own size."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return int(value) if value.is_integer() else float(f"{value:.{_DIGITS - 1}e}")
    return value


def _frame(run: RunRecord, charts: list[Chart]) -> Json:
    """Frame all charts, with names of layers for a wide and for a narrow window."""
    count = len(charts[0].layers)
    wide, narrow = (18, 5) if count > 12 else (46, 13)
    return {
        "heads": [interactive.label_head(layer) for layer in charts[0].layers],
        "layout": interactive.layout(charts[0], mark="QUICK RUN" if run.quick else None),
        "log": interactive.log_axis(),
        "selection": interactive.SELECTION,
        "ticks": [
            interactive.layer_ticks(charts[0], wide, turned=count > 5),
            interactive.layer_ticks(charts[0], narrow, turned=True),
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


def _checkpoint(
    run: RunRecord,
    checkpoint: CheckpointRecord,
    shown: Sequence[Measure],
    charts: Sequence[Chart],
    key: dict[str, Look],
    *,
    matrices: bool,
) -> Json:
    details = _Details(run, checkpoint, shown, charts[0])
    return {
        "label": wording.state(checkpoint),
        "steps": [wording.steps_summary(m.steps(checkpoint), m.label) for m in shown],
        "beside": [series.look.label for series in charts[0].of("reference")],
        "figures": [_figure(chart, key) for chart in charts],
        "probes": [details.of(probe, matrices=matrices) for probe in checkpoint.probes],
    }


def _key(charts: Sequence[Chart], *, several: bool) -> dict[str, Look]:
    """List the looks of all series that have a name, the probes first, with their line."""
    found: dict[str, Look] = {}
    for role in _KEY_ORDER:
        for series in (series for chart in charts for series in chart.of(role)):
            line = SOLID if role == "probes" else series.look.dash
            found.setdefault(series.label, replace(series.look, dash=line))
    if several:
        found[OTHERS.label] = OTHERS
    return {label: look for label, look in found.items() if label}


def _figure(chart: Chart, key: dict[str, Look]) -> Json:
    """Draw the traces, and number their entries in the key."""
    labels = {series.label for series in chart.series} | {OTHERS.label}
    numbers = [number for number, label in enumerate(key) if label in labels]
    return {"traces": interactive.traces(chart), "key": numbers}


# Of each column a value to sort by and a text; the page fills in the first and "measure".
_Cell = Callable[[ProbeRecord], tuple[float | str | None, str]]
_COLUMNS: dict[str, tuple[str, _Cell]] = {
    "layer": ("layer", lambda p: (None, "")),
    "test": ("test error", lambda p: (p.test_error_rate, plain(p.test_error_rate))),
    "interval": ("95 % interval", lambda p: (p.test_error_ci95[0], span(p.test_error_ci95))),
    "verdict": ("step", lambda p: (None, "")),
    "measure": ("", lambda p: (None, "")),
    "train": ("train error", lambda p: (p.train_error_rate, plain(p.train_error_rate))),
    "width": ("width", lambda p: (p.num_features, whole(p.num_features))),
    "l2": ("l2", lambda p: (p.l2, scientific(p.l2, 0) + " (end)" * p.l2_at_edge)),
    "gap": ("gap, nats", lambda p: (p.duality_gap, scientific(p.duality_gap))),
    "passes": ("passes", lambda p: (p.num_passes, whole(p.num_passes))),
    "certificate": ("certificate", lambda p: (p.standing, wording.short_certificate(p))),
}


def _columns(run: RunRecord) -> list[Json]:
    steps = any(checkpoint.steps for checkpoint in run.checkpoints)
    return [
        {
            "key": key,
            "label": wording.passes(run) if key == "passes" else label,
            "left": key in ("layer", "verdict", "certificate"),
            "hidden": key == "verdict" and not steps,
        }
        for key, (label, _) in _COLUMNS.items()
    ]


class _Details:
    """Texts of the page about each probe of a checkpoint; what all share is looked up once."""

    def __init__(
        self, run: RunRecord, checkpoint: CheckpointRecord, shown: Sequence[Measure], chart: Chart
    ) -> None:
        self._run, self._shown = run, shown
        self._places = {layer: place for place, layer in enumerate(chart.layers)}
        self._steps = [{step.to_layer: step for step in m.steps(checkpoint)} for m in shown]
        self._beside = [_texts(series, len(chart.layers)) for series in chart.of("reference")]

    def of(self, probe: ProbeRecord, *, matrices: bool) -> Json:
        """Collect them for one probe."""
        run, place, found = self._run, self._places[probe.layer], probe.evaluation
        content = {
            "place": place,
            "failed": probe.standing == "failed",
            "certificate": wording.certificate(probe, wording.tolerance(run)),
            "values": [[m.read(probe), _with_interval(m, probe)] for m in self._shown],
            "facts": [
                *(read(probe) for read in _FACTS.values()),
                *(_with_interval(of_metric(m), probe) if found else None for m in run.metrics),
            ],
            "steps": {
                str(i): [step.verdict, f"Against {step.from_layer}, the layer before: {words}."]
                for i, steps in enumerate(self._steps)
                if (step := steps.get(probe.layer)) and (words := wording.step(step))
            },
            "note": interactive.broken(probe_note(run, probe)),
            "beside": [texts[place] for texts in self._beside],
            "cells": [cell(probe) for _, cell in _COLUMNS.values()],
        }
        return content | (_confusion(run, found, matrices=matrices) if found else {})


def _written(
    read: Callable[[Evaluation], float | None], write: Callable[[float], str] = plain
) -> Callable[[ProbeRecord], str | None]:
    number = evaluated(read)
    return lambda probe: None if (value := number(probe)) is None else write(value)


def _with_interval(measure: Measure, probe: ProbeRecord) -> str:
    """Write a number, and of a metric its interval too."""
    text, ends = plain(measure.value(probe)), measure.interval(probe)
    return f"{text} ({span(ends)})" if measure.metric and math.isfinite(ends[0]) else text


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
    "activations": lambda probe: probe.dtype,
    "passes over the features": lambda probe: whole(probe.num_passes),
    "samples that the certificate leaves open": _written(lambda e: e.num_undecided, whole),
    "V-information, bits": _written(lambda e: e.v_information_bits),
    "label entropy, bits": _written(lambda e: e.prior_entropy_bits),
    "MDL, bits": _written(lambda e: e.mdl.bits if e.mdl else None, whole),
    "Brier score": _written(lambda e: e.brier),
    "calibration error (ECE)": _written(lambda e: e.ece),
    "top-2 error": _written(lambda e: e.top_k_error_rate.get("2")),
    "top-3 error": _written(lambda e: e.top_k_error_rate.get("3")),
    "top-5 error": _written(lambda e: e.top_k_error_rate.get("5")),
}


def _texts(series: Series, num_layers: int) -> list[str | None]:
    """Tell what a reference has at each layer, for those who can't point at it."""
    if series.value is not None:
        return [plain(series.value)] * num_layers
    found = {point.place: ", ".join([plain(point.value), *point.note]) for point in series.points}
    return [found.get(place) for place in range(num_layers)]


def _confusion(run: RunRecord, found: Evaluation, *, matrices: bool) -> Json:
    """Collect class-wise results; of large matrices only the most frequent mistakes."""
    classes = run.dataset.classes or ()
    counted = (
        (true, predicted, count)
        for true, row in enumerate(found.confusion)
        for predicted, count in enumerate(row)
        if true != predicted
    )
    all_mistakes = found.mistakes or counted
    mistakes = sorted((-count, true, told) for true, told, count in all_mistakes if count)

    def name(number: int) -> str:
        return classes[number] if number < len(classes) else str(number)

    return {
        "confusion": found.confusion if matrices and found.confusion else None,
        "classErrors": [plain(rate) for rate in found.per_class_error_rate] if matrices else None,
        "mistakes": [
            f"{name(true)} \N{RIGHTWARDS ARROW} {name(predicted)} ({-count:,})"
            for count, true, predicted in mistakes[:_MOST_CONFUSED]
        ],
    }
