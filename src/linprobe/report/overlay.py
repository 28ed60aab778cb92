"""Curves of several runs in one figure: a panel a checkpoint, and below it how far they differ."""

import math
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from linprobe.records.comparison.curves import Panel, Point, subtract
from linprobe.records.comparison.distances import Comparison
from linprobe.records.seeds import seed_words
from linprobe.report.bars import draw_majority, mark_skip
from linprobe.report.curve import draw_lost, make_logarithmic, name_layers
from linprobe.report.plots import finish, samples_note
from linprobe.report.style import INK, LIGHT, MUTED, STYLE, VERMILION, Look
from linprobe.report.wording import least_rate
from linprobe.runtime.errors import LinprobeError

# Vermilion marks what isn't certified, in all figures.
_LOOKS = (
    Look("", "blue", (1, 0), "o"),
    Look("", "orange", (5, 2), "s"),
    Look("", "green", (6, 2, 1, 2), "^"),
    Look("", "purple", (2, 1), "D"),
    Look("", "violet", (7, 2, 1, 2, 1, 2), "v"),
    Look("", "muted", (3, 3), "P"),
)
_PUBLISHED = Look("published", "ink", (1, 1), "*")
_MOST_MARKED = 40  # layers that all have a marker
_WIDE = 20  # rates that differ by more than this factor need a logarithmic scale


def draw_comparison(comparison: Comparison) -> Figure:
    """Error against layer, with each curve's difference from the first in a second row.

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
    panels, differ = comparison.panels, _differ(comparison)
    deep = comparison.skip_layer is not None
    width = 6.4 if len(panels) == 1 else 4.4 * len(panels)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, 6.4 if differ else 4.4), layout="constrained")
        rows = figure.subplots(
            *(1 + differ, len(panels)),
            sharex="col",
            sharey="row" if deep else False,
            squeeze=False,
            height_ratios=(3, 2) if differ else None,
        )
        log = not deep and any(_is_wide(comparison, panel) for panel in panels)
        for place, panel in enumerate(panels):
            _draw_errors(rows[0][place], comparison, panel, log=log)
            if differ:
                _draw_differences(rows[1][place], comparison, panel)
            name_layers(rows[-1][place], panel.layers)
        rows[0][0].set_ylabel(f"{comparison.split} prediction error of the probe")
        if differ:
            rows[1][0].set_ylabel(f"error minus that of\n{comparison.curves[0].label}")
        quick = any(run.quick for run in comparison.runs)
        finish(figure, list(rows[0]), _note(comparison), quick=quick, grows=True)
    return figure


def _differ(comparison: Comparison) -> bool:
    return len(comparison.curves) > 1 or comparison.published is not None


def _draw_errors(axes: Axes, comparison: Comparison, panel: Panel, *, log: bool) -> None:
    floor = least_rate(comparison.first, comparison.split) if log else 0.0
    for place, points in enumerate(panel.curves):
        label = comparison.curves[place].long_label
        _draw_curve(axes, panel, [points[layer] for layer in panel.layers], place, label, floor)
    published = panel.published.get(comparison.reading, {})
    if comparison.published is not None and published:
        name = f"published, {comparison.published.split} error"
        _draw_line(axes, panel.layers, published, _PUBLISHED, 3, name, len(panel.curves))
    majority = {run.dataset.majority_error_rate for run in comparison.runs}
    if len(majority) == 1 and comparison.skip_layer is not None:
        draw_majority(axes, comparison.first, comparison.split)
    axes.set_title(_state(panel))
    if comparison.skip_layer is not None:
        mark_skip(axes, panel.layers, comparison.skip_layer)
        axes.set_ylim(0, 1.0)
    elif log:
        make_logarithmic(axes)
        rates = [max(rate, floor) for rate in _rates(comparison, panel)] or [0.1, 1.0]
        axes.set_ylim(min(rates) / 1.3, max(rates) * 1.35)
    else:
        axes.set_ylim(bottom=0)


def _draw_curve(
    axes: Axes, panel: Panel, points: Sequence[Point], place: int, label: str, floor: float
) -> None:
    """A line with its spread and its markers, hollow where no optimum was asked for or found."""
    look, size = _LOOKS[place], 0.6 * matplotlib.rcParams["lines.markersize"]
    rates = [max(point.error.mean, floor) for point in points]
    failed = [i for i, point in enumerate(points) if point.failed]
    lost = [i for i, rate in enumerate(rates) if not math.isfinite(rate)]
    hollow = _hollow(points)
    if any(point.error.n > 1 for point in points):
        low = [max(point.error.low, floor) for point in points]
        high = [max(point.error.high, floor) for point in points]
        colour = LIGHT[look.colour]
        axes.fill_between(range(len(points)), low, high, color=colour, alpha=0.25, linewidth=0)
    by_layer = dict(zip(panel.layers, rates, strict=True))
    _draw_line(axes, panel.layers, by_layer, look, 2, label, place, hollow=hollow)
    if failed and not hollow:
        axes.plot(
            failed,
            [rates[i] for i in failed],
            "o",
            color=VERMILION,
            markerfacecolor="white",
            markersize=size,
            zorder=3.5,
            label="probe, not certified",
        )
    draw_lost(axes, lost)


def _hollow(points: Sequence[Point]) -> bool:
    """Whether no optimum was asked for, or none was found."""
    trained = any(not point.converged and not point.failed for point in points)
    return trained or not any(point.converged for point in points)


def _draw_line(
    axes: Axes,
    layers: Sequence[str],
    rates: dict[str, float],
    look: Look,
    zorder: float,
    label: str | None,
    place: int,
    *,
    hollow: bool = False,
) -> None:
    """A line through the layers that have a rate; markers stand apart from other lines'."""
    count = len(layers)
    every = 1 if count <= _MOST_MARKED else 16
    axes.plot(
        range(count),
        [rates.get(layer, math.nan) for layer in layers],
        color=LIGHT[look.colour],
        linestyle=(0, look.dash),
        marker=look.marker,
        markevery=(3 * place % every, every),
        markersize=(1.1 if look.marker == "*" else 0.7) * matplotlib.rcParams["lines.markersize"],
        markerfacecolor="white" if hollow else None,
        zorder=zorder,
        label=label,
    )


def _draw_differences(axes: Axes, comparison: Comparison, panel: Panel) -> None:
    first, curves = panel.rates(0), len(panel.curves)
    axes.axhline(0, color=LIGHT[_LOOKS[0].colour], zorder=1.5)
    for place in range(1, curves):
        found = subtract(panel.rates(place), first)
        hollow = _hollow([panel.curves[place][layer] for layer in panel.layers])
        _draw_line(axes, panel.layers, found, _LOOKS[place], 2, None, place, hollow=hollow)
    published = subtract(panel.published.get(comparison.reading, {}), first)
    _draw_line(axes, panel.layers, published, _PUBLISHED, 3, None, curves)
    if comparison.skip_layer in panel.layers:
        skip = panel.layers.index(str(comparison.skip_layer))
        axes.axvline(skip, color=INK, linestyle=":", linewidth=1.0)
    axes.spines["bottom"].set_color(MUTED)


def _rates(comparison: Comparison, panel: Panel) -> list[float]:
    """All that is drawn."""
    points = [points[layer].error for points in panel.curves for layer in panel.layers]
    rates = [rate for point in points for rate in (point.mean, point.low, point.high)]
    rates += panel.published.get(comparison.reading, {}).values()
    return [rate for rate in rates if math.isfinite(rate)]


def _is_wide(comparison: Comparison, panel: Panel) -> bool:
    rates = [rate for rate in _rates(comparison, panel) if rate > 0]
    return bool(rates) and max(rates) > _WIDE * min(rates)


def _state(panel: Panel) -> str:
    if not panel.step:
        return panel.name
    return f"after {panel.step:,} minibatches"


def _note(comparison: Comparison) -> str:
    """What was drawn, and what the published numbers are."""
    samples = list(dict.fromkeys(samples_note(run) for run in comparison.runs))
    seeds = list(dict.fromkeys(seed_words(curve.runs) for curve in comparison.curves))
    note = "; ".join([comparison.first.experiment, *samples])
    if len(seeds) == 1:
        note += f", {seeds[0]}"
    if comparison.published is not None:
        found = comparison.published
        note += f". Published: {found.source}; precision {found.precision:.3f}"
    return note
