"""Errors of many probes as bars, a panel a checkpoint, as in the paper's Figure 8."""

import matplotlib
from matplotlib.axes import Axes

from linprobe.report.chart import Chart, named_places
from linprobe.report.curve import TURNED, draw_lost, draw_series, mark_skip
from linprobe.report.style import CONTROL_LOOKS, LIGHT, NATIVE_LOOKS

_MAX_LABELLED = 12


def draw_bars(axes: Axes, chart: Chart, *, inches: float) -> None:
    """Draw the error of each probe, beside the majority-class baseline if it is known.

    Args:
        axes: empty ones.
        chart: of an error rate.
        inches: width of the axes, which decides how many ticks have room.
    """
    # White gaps between few bars; between many they would only thin the colour.
    width = 0.8 if len(chart.layers) <= 2 * _MAX_LABELLED + 8 else 1.0
    for series in chart.of("probes"):
        axes.bar(
            [point.place for point in series.points],
            [point.value for point in series.points],
            width,
            color=LIGHT[series.look.colour],
            hatch=series.look.hatch,
            edgecolor="white",
            linewidth=0,
            label=series.look.label,
        )
    draw_lost(axes, [point.place for series in chart.of("lost") for point in series.points])
    mark_skip(axes, chart)
    for series in chart.of("reference"):
        if series.look in (CONTROL_LOOKS["majority"], *NATIVE_LOOKS.values()):
            draw_series(axes, chart, series, label=series.look.label, zorder=2)
    _name_bars(axes, chart, inches)


def _name_bars(axes: Axes, chart: Chart, inches: float) -> None:
    """Name all layers where they fit; else the first, the last, and numbers between them."""
    layers, last = chart.layers, len(chart.layers) - 1
    axes.set_xlim(-1, last + 1)
    if last < _MAX_LABELLED:
        axes.set_xticks(range(last + 1), chart.names, **TURNED)
        axes.set_xlabel("probe point")
        return
    room = 72 * inches / (3.2 * matplotlib.rcParams["font.size"]) - 0.7
    places = named_places(last + 1, int(room))
    axes.set_xticks(places, [layers[i] if i in (0, last) else str(i) for i in places])
    axes.set_xlabel("probe point (number of the layer)")
