"""Draw a chart, or one series of it, on matplotlib's axes."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes

from linprobe.report.chart import LOG_TICKS, Chart, Point, Scale, Series, named_places, tick_text
from linprobe.report.style import INK, LABEL_BOX, LIGHT, LOST, SOLID, Look
from linprobe.report.wording import plain

_ROOM = 16  # names of layers below a panel


def draw_curve(
    axes: Axes, chart: Chart, scale: Scale, *, inches: float, alone: bool, controls: bool = True
) -> None:
    """Draw a chart with its axes.

    Args:
        axes: empty ones.
        chart: of at least one layer.
        scale: see `Chart.fitted`, also for `controls`.
        inches: width of the axes, which decides whether values can be written at the points.
        alone: the key can name values: no other checkpoint shares it, and there is room.
        controls: a linear scale holds the recorded controls, too.
    """
    chart, low, high = chart.fitted(scale, controls=controls)
    if scale == "log":
        make_logarithmic(axes)
    axes.set_ylim(low, high)
    for order, series in enumerate(chart.series):
        label = series.label if alone else series.look.label
        draw_series(axes, chart, series, label=label, zorder=1.5 + 0.1 * order)
    if inches / len(chart.layers) > 0.045 * matplotlib.rcParams["font.size"]:
        _write_values(axes, chart)
    name_layers(axes, chart)


def draw_series(axes: Axes, chart: Chart, series: Series, *, label: str, zorder: float) -> None:
    """Draw one series as its look says."""
    look = series.look
    kind: dict[str, Any] = {
        "color": LIGHT[look.colour],
        "label": label or None,
        "zorder": zorder,
        "linewidth": matplotlib.rcParams["lines.linewidth"],
    }
    if series.role == "reference":
        kind["linewidth"] *= 0.8
    if look is LOST:
        draw_lost(axes, [point.place for point in series.points])
    elif look.marker == "bar":
        kind["linewidth"] *= 1.5 if chart.crowded else 5
        _draw_ranges(axes, chart, series.points, alpha=0.45, **kind)
    elif series.value is not None:
        axes.axhline(chart.placed(series.value), linestyle=line_style(look), **kind)
    else:
        _draw_points(axes, chart, series, kind)


def _draw_ranges(axes: Axes, chart: Chart, points: Sequence[Point], **kind: Any) -> None:
    axes.vlines(
        [point.place for point in points],
        [chart.placed(point.low) for point in points],
        [chart.placed(point.high) for point in points],
        **kind,
    )


def _draw_points(axes: Axes, chart: Chart, series: Series, kind: dict[str, Any]) -> None:
    """Draw markers, joined if the look has a dash, with their intervals."""
    look, points, size = series.look, series.points, matplotlib.rcParams["lines.markersize"]
    beside = series.role == "reference"
    kind |= {
        "linestyle": line_style(look),
        "marker": "" if beside and chart.crowded else look.marker,
        "markersize": size * (0.5 if beside or chart.crowded else 1),
        "markerfacecolor": kind["color"] if look.filled else "white",
    }
    x, y = [point.place for point in points], [chart.placed(point.value) for point in points]
    if not any(math.isfinite(point.low) for point in points):
        axes.plot(x, y, **kind)
        return
    below = (value - chart.placed(point.low) for value, point in zip(y, points, strict=True))
    above = (point.high - value for value, point in zip(y, points, strict=True))
    axes.errorbar(
        x,
        y,
        yerr=[[max(0.0, length) for length in lengths] for lengths in (below, above)],
        elinewidth=0.75 * kind["linewidth"],
        capsize=0 if beside or chart.crowded else 0.7 * size,
        **kind,
    )


def line_style(look: Look) -> Any:
    """Give matplotlib's name or pattern of a look's line."""
    return (0, look.dash) if look.dash not in ((), SOLID) else "-" if look.dash else "none"


def draw_lost(axes: Axes, places: Sequence[float]) -> None:
    """Draw a cross at the foot at each place whose probe is without a value."""
    if places:
        axes.plot(
            places,
            [0.02] * len(places),
            LOST.marker,
            color=LIGHT[LOST.colour],
            markersize=1.6 * matplotlib.rcParams["lines.markersize"],
            markeredgewidth=1.2 * matplotlib.rcParams["lines.linewidth"],
            transform=axes.get_xaxis_transform(),
            label=LOST.label,
            zorder=5,
        )


def _write_values(axes: Axes, chart: Chart) -> None:
    font = matplotlib.rcParams["font.size"]
    for point in (point for series in chart.of("probes") for point in series.points):
        axes.annotate(
            plain(point.value),
            (point.place, chart.placed(max(point.value, point.high))),
            xytext=(0, 0.4 * font),
            textcoords="offset points",
            ha="center",
            fontsize=0.78 * font,
            color=INK,
            bbox=LABEL_BOX,
            zorder=4,
        )


def make_logarithmic(axes: Axes) -> None:
    """Give the error a logarithmic scale with plain numbers."""
    axes.set_yscale("log")
    axes.set_yticks(LOG_TICKS, [tick_text(tick) for tick in LOG_TICKS])
    axes.minorticks_off()


def name_layers(axes: Axes, chart: Chart) -> None:
    """Name the layers below the axis: all where they fit, else some at round distances."""
    places = named_places(len(chart.layers), _ROOM)
    names = chart.names
    axes.set_xticks(places, [names[place] for place in places], **TURNED)
    axes.set_xlim(-0.5, len(chart.layers) - 0.5)


TURNED: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
"""Placing of layer names below an axis."""


def mark_skip(axes: Axes, chart: Chart) -> None:
    """Mark the layer that receives the skip connection, if there is one."""
    if (place := chart.skip) is not None:
        axes.annotate(
            f"skip enters\n{chart.layers[place]}",
            (place, 0.005),
            xycoords=("data", "axes fraction"),
            xytext=(place, 0.955),
            textcoords=("data", "axes fraction"),
            ha="center",
            va="center",
            fontsize=0.83 * matplotlib.rcParams["font.size"],
            color=INK,
            linespacing=1.1,
            arrowprops={"arrowstyle": "-", "linestyle": ":", "color": INK, "linewidth": 1.0},
        )
