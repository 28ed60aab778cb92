"""Curves of several runs in one figure: a panel a checkpoint, and below it how far they differ."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from linprobe.records.comparison.curves import Panel, subtract
from linprobe.records.comparison.curves import Point as RunsPoint
from linprobe.records.comparison.distances import Comparison
from linprobe.records.seeds import seed_words
from linprobe.report.building import majority
from linprobe.report.chart import CROWDED, Chart, Point, Series, log_limits, needed_scale
from linprobe.report.curve import draw_series, line_style, make_logarithmic, mark_skip, name_layers
from linprobe.report.plots import finish
from linprobe.report.style import INK, LIGHT, LOST, MUTED, PROBE_LOOKS, SOLID, STYLE, Look
from linprobe.report.wording import least_rate, panel_title, samples_note
from linprobe.runtime.errors import LinprobeError

# Vermilion marks what isn't certified, in all figures.
_LOOKS = (
    Look("", "blue", SOLID, "o"),
    Look("", "orange", (5, 2), "s"),
    Look("", "green", (6, 2, 1, 2), "^"),
    Look("", "purple", (2, 1), "D"),
    Look("", "violet", (7, 2, 1, 2, 1, 2), "v"),
    Look("", "muted", (3, 3), "P"),
)
_PUBLISHED = Look("", "ink", (1, 1), "*")


def draw_comparison(comparison: Comparison) -> Figure:
    """Draw error against layer, with each curve's difference from the first in a second row.

    A curve of several seeds is their mean in a band from the least to the largest. There is no
    second row where there is but one curve.

    Args:
        comparison: what to draw, with at most six curves.

    Raises:
        LinprobeError: More curves than can be told apart.
    """
    if len(comparison.curves) > len(_LOOKS):
        raise LinprobeError(
            f"there are {len(comparison.curves)} runs; expected at most {len(_LOOKS)}, whose "
            "lines can still be told apart"
        )
    charts = [_chart(comparison, panel) for panel in comparison.panels]
    differ = len(comparison.curves) > 1 or comparison.published is not None
    deep = comparison.skip_layer is not None
    width = 6.4 if len(charts) == 1 else 4.4 * len(charts)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, 6.4 if differ else 4.4), layout="constrained")
        rows = figure.subplots(
            *(1 + differ, len(charts)),
            sharex="col",
            sharey="row" if deep else False,
            squeeze=False,
            height_ratios=(3, 2) if differ else None,
        )
        log = not deep and any(needed_scale(_drawn(chart)) == "log" for chart in charts)
        for place, (chart, panel) in enumerate(zip(charts, comparison.panels, strict=True)):
            _draw_errors(rows[0][place], replace(chart, scale="log") if log else chart, deep=deep)
            rows[0][place].set_title(panel_title(panel.name, panel.step))
            if differ:
                _draw_differences(rows[1][place], comparison, panel, chart)
            name_layers(rows[-1][place], chart)
        rows[0][0].set_ylabel(chart.axis)
        if differ:
            rows[1][0].set_ylabel(f"error minus that of\n{comparison.curves[0].label}")
        quick = any(run.quick for run in comparison.runs)
        finish(figure, list(rows[0]), _note(comparison), quick=quick, grows=True)
    return figure


def _chart(comparison: Comparison, panel: Panel) -> Chart:
    series: list[Series] = []
    for look, curve, points in zip(_LOOKS, comparison.curves, panel.curves, strict=False):
        found = [points[layer] for layer in panel.layers]
        series += _curve(replace(look, label=curve.long_label), found)
    published = panel.published.get(comparison.reading, {})
    if comparison.published is not None and published:
        look = replace(_PUBLISHED, label=f"published, {comparison.published.split} error")
        series.append(_line(look, panel, published))
    rates = {run.dataset.majority_error_rate for run in comparison.runs}
    if len(rates) == 1 and comparison.skip_layer is not None:
        series += majority(comparison.first, comparison.split)
    places = {layer: place for place, layer in enumerate(panel.layers)}
    return Chart(
        layers=panel.layers,
        axis=f"{comparison.split} prediction error of the probe",
        series=tuple(series),
        floor=least_rate(comparison.first, comparison.split),
        skip=places.get(str(comparison.skip_layer)),
    )


def _curve(look: Look, points: Sequence[RunsPoint]) -> Iterator[Series]:
    """Make a line with its spread, hollow where no optimum was asked for or found."""
    hollow = _hollow(points)
    drawn = [Point(place, point.error.mean, *_ends(point)) for place, point in enumerate(points)]
    yield Series("curve", replace(look, filled=not hollow), tuple(drawn))
    failed = [Point(i, point.error.mean) for i, point in enumerate(points) if point.failed]
    if failed and not hollow:
        yield Series("probes", PROBE_LOOKS["failed"], tuple(failed))
    lost = tuple(point for point in drawn if not math.isfinite(point.value))
    if lost:
        yield Series("lost", LOST, lost)


def _ends(point: RunsPoint) -> tuple[float, float]:
    error = point.error
    return (error.low, error.high) if error.n > 1 else (math.nan, math.nan)


def _hollow(points: Sequence[RunsPoint]) -> bool:
    """Tell whether no optimum was asked for, or none was found."""
    trained = any(not point.converged and not point.failed for point in points)
    return trained or not any(point.converged for point in points)


def _line(look: Look, panel: Panel, rates: dict[str, float]) -> Series:
    found = [Point(i, rates.get(layer, math.nan)) for i, layer in enumerate(panel.layers)]
    return Series("curve", look, tuple(found))


def _drawn(chart: Chart) -> list[float]:
    points = [point for series in chart.of("curve") for point in series.points]
    return [value for point in points for value in (point.value, point.low, point.high)]


def _draw_errors(axes: Axes, chart: Chart, *, deep: bool) -> None:
    for order, series in enumerate(chart.of("curve")):
        _draw_line(axes, chart, series, order)
    for series in chart.of("reference", "probes", "lost"):
        draw_series(axes, chart, series, label=series.look.label, zorder=3.5)
    if deep:
        mark_skip(axes, chart)
        axes.set_ylim(0, 1.0)
    elif chart.scale == "log":
        make_logarithmic(axes)
        axes.set_ylim(*log_limits(_drawn(chart), chart.floor))
    else:
        axes.set_ylim(bottom=0)


def _draw_line(axes: Axes, chart: Chart, series: Series, order: int) -> None:
    """Draw a line in its band; where markers are few, they stand apart from other lines'."""
    look, points = series.look, series.points
    places = [point.place for point in points]
    if any(math.isfinite(point.low) for point in points):
        low = [chart.placed(point.low) for point in points]
        high = [chart.placed(point.high) for point in points]
        axes.fill_between(places, low, high, color=LIGHT[look.colour], alpha=0.25, linewidth=0)
    every = 1 if len(places) <= CROWDED else 16
    axes.plot(
        places,
        [chart.placed(point.value) for point in points],
        color=LIGHT[look.colour],
        linestyle=line_style(look),
        marker=look.marker,
        markevery=(3 * order % every, every),
        markersize=(1.1 if look.marker == "*" else 0.7) * matplotlib.rcParams["lines.markersize"],
        markerfacecolor=None if look.filled else "white",
        zorder=3 if look.marker == "*" else 2,
        label=look.label or None,
    )


def _draw_differences(axes: Axes, comparison: Comparison, panel: Panel, chart: Chart) -> None:
    first, curves = panel.rates(0), len(panel.curves)
    axes.axhline(0, color=LIGHT[_LOOKS[0].colour], zorder=1.5)
    for order in range(1, curves):
        hollow = _hollow([panel.curves[order][layer] for layer in panel.layers])
        look = replace(_LOOKS[order], filled=not hollow)
        found = subtract(panel.rates(order), first)
        _draw_line(axes, chart, _line(look, panel, found), order)
    published = subtract(panel.published.get(comparison.reading, {}), first)
    _draw_line(axes, chart, _line(_PUBLISHED, panel, published), curves)
    if chart.skip is not None:
        axes.axvline(chart.skip, color=INK, linestyle=":", linewidth=1.0)
    axes.spines["bottom"].set_color(MUTED)


def _note(comparison: Comparison) -> str:
    """Say what was drawn, and what the published numbers are."""
    samples = list(dict.fromkeys(samples_note(run) for run in comparison.runs))
    seeds = list(dict.fromkeys(seed_words(curve.runs) for curve in comparison.curves))
    note = "; ".join([comparison.first.experiment, *samples])
    if len(seeds) == 1:
        note += f", {seeds[0]}"
    if comparison.published is not None:
        found = comparison.published
        note += f". Published: {found.source}; precision {found.precision:.3f}"
    return note
