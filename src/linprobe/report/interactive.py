"""The chart as plotly's JSON, with colours by name: the page resolves them by day and by night.

A colour is "@name" or "@name/opacity", a name of both palettes in `linprobe.report.style`. All
other text is data, which plotly shows with a few tags read; it is escaped here.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Any

from linprobe.report.chart import (
    LOG_TICKS,
    NAME_LENGTH,
    Chart,
    Point,
    Series,
    named_places,
    tick_text,
)
from linprobe.report.names import short_names
from linprobe.report.style import LOST, OTHERS, SOLID, Look
from linprobe.report.wording import plain

_FONT = "system-ui, Arial, DejaVu Sans, sans-serif"
_SYMBOLS = {"D": "diamond", "s": "square", "^": "triangle-up", "v": "triangle-down", "o": "circle"}
_POLYGONS = {
    "D": "17,0 23,6 17,12 11,6",
    "s": "13.5,2.5 20.5,2.5 20.5,9.5 13.5,9.5",
    "^": "17,2 21,9.5 13,9.5",
    "v": "17,10 21,2.5 13,2.5",
}
_BREAK = "\n"  # shorter in the page's data than plotly's tag
_CLEAR = "rgba(0,0,0,0)"

Json = dict[str, Any]


def traces(chart: Chart) -> list[Json]:
    """Draw all series; values are raw, for the page to lift them onto a logarithmic scale."""
    return [trace for series in chart.series for trace in _traces(chart, series)] + _targets(chart)


def _traces(chart: Chart, series: Series) -> Iterator[Json]:
    look, points, role = series.look, series.points, series.role
    colour = f"@{look.colour}"
    if series.value is not None:
        ends = [-0.5, len(chart.layers) - 0.5]
        yield _trace(role, ends, [series.value] * 2, "lines", line=_line(look, 1.5))
    elif role == "optimum":
        line = {"color": f"{colour}/0.45", "width": 4 if chart.crowded else 10}
        yield _ranges(role, points, line)
    elif role == "lost":
        marker = {"symbol": "x-thin", "size": 12, "line": {"width": 3, "color": colour}}
        feet = [0.02] * len(points)
        yield _trace(role, _places(points), feet, "markers", marker=marker, yaxis="y2")
    elif role == "curve":
        values = [point.value for point in points]
        yield _trace(role, _places(points), values, "lines", line=_line(look, 2.2))
    else:
        yield from _marked(chart, series, colour)


def _marked(chart: Chart, series: Series, colour: str) -> Iterator[Json]:
    """Probes, or a control of each layer: markers with their intervals."""
    look, points, beside = series.look, series.points, series.role == "reference"
    if any(math.isfinite(point.low) for point in points):
        caps = {} if beside or chart.crowded else {"mode": "lines+markers", "marker": _caps(colour)}
        yield _ranges("interval", points, {"color": f"{colour}/0.75", "width": 1.3}) | caps
    size = 3 if beside and chart.crowded else 5 if chart.crowded else 6 if beside else 9
    marker = {
        "symbol": _SYMBOLS.get(look.marker, "circle"),
        "size": size,
        "opacity": 1,
        "color": colour if look.filled else "@surface",
        "line": {"width": 0 if look.filled else 2, "color": colour},
    }
    values = [point.value for point in points]
    mode = "lines" if beside and chart.crowded else "lines+markers" if look.dash else "markers"
    more = _told(points, look.label) if beside else {}
    line = _line(look, 1.5) if look.dash else {}
    yield _trace(series.role, _places(points), values, mode, marker=marker, line=line, **more)


def _targets(chart: Chart) -> list[Json]:
    """Invisible points that answer a pointer: where points overlap, the last trace is hit."""
    found = []
    for role, axis in (("probes", "y"), ("lost", "y2")):
        points = [p for series in chart.series if series.role == role for p in series.points]
        if points:
            points.sort(key=lambda point: point.place)
            values = [0.02 if role == "lost" else point.value for point in points]
            marker = {"size": 1, "opacity": 0}
            told = _told(points)
            found.append(
                _trace(
                    "targets", _places(points), values, "markers", marker=marker, yaxis=axis, **told
                )
            )
    return found


def other_curve(chart: Chart, name: str, *, above: bool) -> Json:
    """Draw a checkpoint that is not in view: a pale line with its name at its right end."""
    values = chart.values()
    known = [place for place, value in enumerate(values) if math.isfinite(value)]
    labels = [escape(name, quote=False) if place == max(known) else "" for place in known]
    return _trace(
        "others",
        known,
        [values[place] for place in known],
        "lines+text",
        line={"color": f"@{OTHERS.colour}/0.55", "width": 1.2},
        text=labels,
        textposition="top left" if above else "bottom left",
        textfont={"size": 11, "color": f"@{OTHERS.colour}"},
    )


def _trace(role: str, x: Sequence[float], y: Sequence[float], mode: str, **more: Any) -> Json:
    found = {"type": "scatter", "meta": role, "mode": mode, "x": x, "y": y, "hoverinfo": "skip"}
    return found | {key: value for key, value in more.items() if value != {}}


def _line(look: Look, width: float) -> Json:
    dash = {} if look.dash == SOLID else {"dash": ",".join(f"{2 * part:g}px" for part in look.dash)}
    return {"color": f"@{look.colour}", "width": width} | dash


def _caps(colour: str) -> Json:
    return {"symbol": "line-ew", "size": 8, "line": {"width": 1.3, "color": f"{colour}/0.75"}}


def _places(points: Sequence[Point]) -> list[float]:
    return [point.place for point in points]


def _ranges(role: str, points: Sequence[Point], line: Json) -> Json:
    """Vertical lines between the two ends of each point."""
    x = [place for point in points for place in (point.place, point.place, math.nan)]
    y = [end for point in points for end in (point.low, point.high, math.nan)]
    return _trace(role, x, y, "lines", line=line)


def _told(points: Sequence[Point], label: str = "") -> Json:
    """Labels that a pointer brings up, below the layer's name."""
    values = ([f"{label} {plain(point.value)}"] if label else [] for point in points)
    texts = [broken([*value, *p.note]) for value, p in zip(values, points, strict=True)]
    return {"text": texts, "hoverinfo": "text"}


def label_head(layer: str) -> str:
    """The first lines of a label: a layer's name, a long one broken into lines."""
    parts = (layer[i : i + 38] for i in range(0, len(layer), 38))
    return f"<b>{broken(parts).removeprefix(_BREAK)}</b>"


def broken(lines: Iterable[str]) -> str:
    """Lines below others; the page writes plotly's tag for each newline."""
    return "".join(_BREAK + escape(line, quote=False) for line in lines)


def layout(chart: Chart, *, mark: str | None) -> Json:
    """The frame of all charts of a run; `mark` is written across it."""
    axis: Json = {
        **{"color": "@ink", "gridcolor": "@line", "linecolor": "@muted"},
        **{"zeroline": False, "tickfont": {"size": 12}, "automargin": True},
    }
    annotations: list[Json] = []
    shapes: list[Json] = []
    paper: Json = {"yref": "paper", "showarrow": False}
    if mark:
        font = {"size": 40, "color": "@vermilion"}
        place = {"x": 0.5, "y": 0.5, "xref": "paper", "textangle": -15, "opacity": 0.3}
        annotations.append(paper | place | {"text": mark, "font": font})
    if chart.skip is not None:
        name = escape(short_names(chart.layers, NAME_LENGTH)[chart.skip], quote=False)
        place = {"x": chart.skip, "y": 1, "yanchor": "bottom", "font": {"size": 11}}
        annotations.append(paper | place | {"text": f"skip enters {name}"})
        line = {"color": "@ink", "width": 1, "dash": "dot"}
        shapes.append(_upright(chart.skip, chart.skip) | {"line": line})
    text = {"family": _FONT, "size": 13, "color": "@ink"}
    ends = [-0.5, len(chart.layers) - 0.5]
    hover = {"bgcolor": "@raised", "bordercolor": "@muted", "align": "left", "font": text}
    return {
        **{"paper_bgcolor": _CLEAR, "plot_bgcolor": _CLEAR, "showlegend": False, "font": text},
        "margin": {"l": 8, "r": 12, "t": 10 if chart.skip is None else 24, "b": 8},
        **{"hovermode": "closest", "hoverdistance": 30, "hoverlabel": hover, "dragmode": "zoom"},
        "modebar": {"bgcolor": _CLEAR, "color": "@muted", "activecolor": "@ink"},
        "xaxis": axis | {"showgrid": False, "ticks": "outside", "range": ends, "uirevision": "x"},
        "yaxis": axis | {"rangemode": "tozero"},
        "yaxis2": {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
        **{"annotations": annotations, "shapes": shapes},
    }


def _upright(left: float, right: float) -> Json:
    return {"type": "rect", "x0": left, "x1": right, "y0": 0, "y1": 1, "yref": "paper"}


def selection() -> Json:
    """A pale band behind the selected layer; the page gives its place."""
    return _upright(0, 0) | {"layer": "below", "line": {"width": 0}, "fillcolor": "@blue/0.13"}


def layer_ticks(layers: Sequence[str], room: int, *, turned: bool) -> Json:
    """Names below the chart, for a width with room for so many of them."""
    names, places = short_names(layers, NAME_LENGTH), named_places(len(layers), room)
    texts = [escape(names[place], quote=False) for place in places]
    return {"tickvals": places, "ticktext": texts, "tickangle": -40 if turned else 0}


def log_axis() -> Json:
    """What a logarithmic scale has in place of the linear one's."""
    texts = [tick_text(tick) for tick in LOG_TICKS]
    return {"type": "log", "rangemode": "normal", "tickvals": LOG_TICKS, "ticktext": texts}


def swatch(look: Look) -> str:
    """Draw a look as SVG, for the key."""
    colour, shapes = f"var(--{look.colour})", ""
    if look.dash:
        dash = " ".join(f"{2 * part:g}" for part in look.dash) if look.dash != SOLID else "none"
        shapes += f'<line x2="34" y1="6" y2="6" stroke-dasharray="{dash}"/>'
    if look.marker == "bar":
        shapes += (
            f'<rect x="12" width="10" height="12" fill="{colour}" stroke="none" opacity=".45"/>'
        )
    if look.marker == LOST.marker:
        shapes += '<path d="M13 2L21 10M21 2L13 10"/>'
    fill = colour if look.filled else "var(--surface)"
    if look.marker == "o":
        shapes += f'<circle cx="17" cy="6" r="4.5" fill="{fill}"/>'
    if look.marker in _POLYGONS:
        shapes += f'<polygon points="{_POLYGONS[look.marker]}" fill="{fill}" stroke="none"/>'
    frame = f'<svg width="34" height="12" aria-hidden="true" stroke="{colour}" stroke-width="2">'
    return f"{frame}{shapes}</svg>"
