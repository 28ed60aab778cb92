"""A small curve of letters, for terminals: test error along the depth.

Braille letters hold 2 x 4 dots each, which makes a line of some 40 levels in ten rows; where they
can't be shown, an asterisk stands for each letter that the line passes.

Drawn by ourselves: plotext would be shorter, but takes half a second to import, has changed its
interface from version 5 to 6, and comes as a compiled wheel for some platforms only.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

from linprobe.records.schema import RunRecord
from linprobe.report.building import build_chart
from linprobe.report.chart import Chart, Scale, Series, fitting_scale
from linprobe.report.measures import chosen
from linprobe.report.names import shorten
from linprobe.report.style import NATIVE_LOOKS
from linprobe.report.wording import state

HEIGHT = 9  # odd: the middle row stands for the middle of the scale
_LABEL = 7  # letters of the numbers at the axis
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a Braille letter, (row, side)
_BRAILLE = 0x2800
_TOPS = (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 7, 8, 10)  # of a linear scale, times a power of ten


def text_curves(
    run: RunRecord, *, width: int, braille: bool = True, metric: str | None = None
) -> list[str]:
    """Draw each checkpoint; all have the same scale.

    Args:
        run: the record.
        width: of the lines, in letters.
        braille: whether such letters can be shown.
        metric: name of the metric to draw; None: the test error.

    Returns:
        The lines; none if no probe has a value. "x" marks a probe that isn't what its
        protocol asks for.
    """
    measure = chosen(run, metric)
    charts = [build_chart(run, checkpoint, measure) for checkpoint in run.checkpoints]
    drawn = [[*chart.values(), *chain(*(s.values for s in _native(chart)))] for chart in charts]
    rates = list(filter(math.isfinite, chain(*drawn)))
    if not rates:
        return []
    scale = fitting_scale(charts, alone=True)
    charts = [replace(chart, scale=scale) for chart in charts]
    ends = _ends(rates, charts[0], scale)
    words = ", logarithmic scale" if scale == "log" else ""
    across = max(width - _LABEL - 2, 10)
    lines = []
    for chart, checkpoint in zip(charts, run.checkpoints, strict=True):
        lines.append(f"{measure.label}, {state(checkpoint)}{words}")
        lines += _curve(chart, ends, across, braille=braille)
        lines += [" " * (_LABEL + 2) + _names(chart.layers, across)]
        lines += [f"{' ' * (_LABEL + 2)}o {series.label}" for series in _native(chart)] + [""]
    return lines


def _native(chart: Chart) -> list[Series]:
    """List what is drawn of the network's own arithmetic, where the probes are of another."""
    return [series for series in chart.of("reference") if series.look in NATIVE_LOOKS.values()]


def _ends(rates: Sequence[float], chart: Chart, scale: Scale) -> tuple[float, float]:
    """Find the ends of the scale; a linear one ends at the next rate of few digits."""
    high = max(*rates, chart.floor)
    if scale == "log":
        return min(map(chart.placed, rates)), high
    power = 10.0 ** math.floor(math.log10(high))
    return min(0.0, *rates), next(top * power for top in _TOPS if top * power >= high * (1 - 1e-9))


def _height(chart: Chart, rate: float, ends: tuple[float, float]) -> float:
    """Measure from 0 at the foot of the scale to 1 at its top; NaN without a rate."""
    if chart.scale == "linear":
        return (rate - ends[0]) / (ends[1] - ends[0])
    return math.log(chart.placed(rate) / ends[0]) / math.log(ends[1] / ends[0])


def _curve(chart: Chart, ends: tuple[float, float], width: int, *, braille: bool) -> list[str]:
    heights = [_height(chart, rate, ends) for rate in chart.values()]
    letters = _letters(heights, width, braille=braille)
    crossed = [series for series in chart.of("probes", "lost") if not series.look.filled]
    for place in (int(point.place) for series in crossed for point in series.points):
        column = round(place / max(len(heights) - 1, 1) * (width - 1))
        row = 0.0 if math.isnan(heights[place]) else heights[place]
        letters[HEIGHT - 1 - round(row * (HEIGHT - 1))][column] = "x"
    for point in (point for series in _native(chart) for point in series.points):
        if point.place in range(len(heights)):  # the middle of a step
            column = round(point.place / max(len(heights) - 1, 1) * (width - 1))
            row = max(0.0, min(1.0, _height(chart, point.value, ends)))
            letters[HEIGHT - 1 - round(row * (HEIGHT - 1))][column] = "o"
    low, high = ends
    middle = (low + high) / 2 if chart.scale == "linear" else math.sqrt(low * high)
    labels = {0: f"{high:.4f}", HEIGHT // 2: f"{middle:.4f}", HEIGHT - 1: f"{low:.4f}"}
    bar = "\N{BOX DRAWINGS LIGHT VERTICAL}" if braille else "|"
    return [
        f"{labels.get(row, ''):>{_LABEL}} {bar}{''.join(line)}".rstrip()
        for row, line in enumerate(letters)
    ]


def _letters(heights: Sequence[float], width: int, *, braille: bool) -> list[list[str]]:
    """Set rows of letters that a line through all heights passes."""
    across, down = (2, 4) if braille else (1, 1)
    columns, rows = width * across, HEIGHT * down
    bits = [[0] * width for _ in range(HEIGHT)]
    before: int | None = None
    for x in range(columns if heights else 0):  # a checkpoint may have no probes
        height = _between(heights, x / max(columns - 1, 1) * (len(heights) - 1))
        if math.isnan(height):
            before = None
            continue
        y = rows - 1 - round(height * (rows - 1))
        other = y if before is None else before
        for dot in range(min(y, other), max(y, other) + 1):  # a steep line passes several
            bits[dot // down][x // across] |= _DOTS[dot % down][x % across]
        before = y
    blank = "" if braille else "*"
    return [
        [(blank or chr(_BRAILLE + letter)) if letter else " " for letter in row] for row in bits
    ]


def _between(heights: Sequence[float], place: float) -> float:
    """Interpolate the line at a place between probes; NaN beside a missing value."""
    left = min(int(place), len(heights) - 1)
    share = place - left
    right = min(left + 1, len(heights) - 1) if share > 0 else left
    return heights[left] + share * (heights[right] - heights[left])


def _names(layers: Sequence[str], width: int) -> str:
    """Name the first and the last layer, at the two ends of the axis."""
    names = [shorten(layer, (width - 1) // 2) for layer in layers]
    if len(names) < 2:
        return names[0] if names else ""
    return names[0] + names[-1].rjust(width - len(names[0]))
