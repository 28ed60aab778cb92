"""The chart as plotly's JSON, with colours by name: the page resolves them by day and by night.

A colour is "@name" or "@name/opacity", a name of both palettes in `linprobe.report.style`. All
other text is data, which plotly shows with a few tags read; it is escaped here.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from linprobe.report.chart import GAP, LOG_TICKS, Chart, Point, Series, named_places, tick_text
from linprobe.report.style import OTHERS, SOLID, Look
from linprobe.report.wording import plain

_SYMBOLS = {"D": "diamond", "s": "square", "^": "triangle-up", "v": "triangle-down", "o": "circle"}
_SHAPES = {
    "o": '<circle cx="17" cy="6" r="4.5"/>',
    "D": '<polygon stroke="none" points="17,0 23,6 17,12 11,6"/>',
    "s": '<polygon stroke="none" points="13.5,2.5 20.5,2.5 20.5,9.5 13.5,9.5"/>',
    "^": '<polygon stroke="none" points="17,2 21,9.5 13,9.5"/>',
    "v": '<polygon stroke="none" points="17,10 21,2.5 13,2.5"/>',
    "x": '<path d="M13 2L21 10M21 2L13 10"/>',
    "bar": '<rect stroke="none" x="12" width="10" height="12" opacity=".45"/>',
}
_BREAK = "\n"  # shorter in the page's data than plotly's tag

Json = dict[str, Any]


def traces(chart: Chart) -> list[Json]:
    """Draw all series; values are raw, for the page to lift them onto a logarithmic scale."""
    return [trace for series in chart.series for trace in _traces(chart, series)] + _targets(chart)


def _traces(chart: Chart, series: Series) -> Iterator[Json]:
    look, points, colour = series.look, series.points, f"@{series.look.colour}"
    if series.value is not None:
        ends = [Point(place, series.value) for place in (-0.5, len(chart.layers) - 0.5)]
        yield _trace(series.role, ends, "lines", line=_line(look, 1.5))
    elif series.role == "optimum":
        line = {"color": f"{colour}/0.45", "width": 4 if chart.crowded else 10}
        yield _trace("optimum", _uprights(points), "lines", line=line)
    elif series.role == "lost":
        marker = {"symbol": "x-thin", "size": 12, "line": {"width": 3, "color": colour}}
        yield _trace("lost", points, "markers", marker=marker, **_feet(points))
    elif series.role == "curve":
        yield _trace("curve", points, "lines", line=_line(look, 2.2))
    else:
        yield from _marked(chart, series, colour)


def _marked(chart: Chart, series: Series, colour: str) -> Iterator[Json]:
    """Draw probes, or a control of each layer: markers with their intervals."""
    look, points, beside = series.look, series.points, series.role == "reference"
    if any(math.isfinite(point.low) for point in points):
        line = {"color": f"{colour}/0.75", "width": 1.3}
        plainly = beside or chart.crowded
        caps = {} if plainly else {"marker": {"symbol": "line-ew", "size": 8, "line": line}}
        mode = "lines" if plainly else "lines+markers"
        yield _trace("interval", _uprights(points), mode, line=line, **caps)
    marker = {
        "symbol": _SYMBOLS.get(look.marker, "circle"),
        "size": 5 if chart.crowded else 6 if beside else 9,
        "opacity": 1,
        "color": colour if look.filled else "@surface",
        "line": {"width": 0 if look.filled else 2, "color": colour},
    }
    plain_line = chart.crowded or not look.marker
    mode = "markers" if not look.dash else "lines" if plain_line else "lines+markers"
    more = _told(points, look.label) | {"line": _line(look, 1.5)} if beside else {}
    yield _trace(series.role, points, mode, marker=marker, **more)


def _targets(chart: Chart) -> list[Json]:
    """Draw invisible points that answer a pointer: of overlapping traces the last is hit."""
    found, marker = [], {"size": 1, "opacity": 0}
    for role, feet in (("probes", False), ("lost", True)):
        points = [point for item in chart.series if item.role == role for point in item.points]
        points.sort(key=lambda point: point.place)
        more = _told(points) | (_feet(points) if feet else {})
        if points:
            found.append(_trace("targets", points, "markers", marker=marker, **more))
    return found


def other_curve(chart: Chart, name: str, *, above: bool) -> Json:
    """Draw a checkpoint that is not in view: a pale line with its name at its right end."""
    known = [Point(i, value) for i, value in enumerate(chart.values()) if math.isfinite(value)]
    return _trace(
        "others",
        known,
        "lines+text",
        line={"color": f"@{OTHERS.colour}/0.55", "width": 1.2},
        text=[*[""] * (len(known) - 1), escape(name, quote=False)],
        textposition="top left" if above else "bottom left",
        textfont={"size": 11, "color": f"@{OTHERS.colour}"},
    )


def _trace(role: str, points: Sequence[Point], mode: str, **more: Any) -> Json:
    x, y = [point.place for point in points], [point.value for point in points]
    found = {"type": "scatter", "meta": role, "mode": mode, "x": x, "y": y, "hoverinfo": "skip"}
    return found | more


def _line(look: Look, width: float) -> Json:
    dash = {} if look.dash == SOLID else {"dash": _dash(look, "px", ",")}
    return {"color": f"@{look.colour}", "width": width} | dash


def _dash(look: Look, unit: str, between: str) -> str:
    return between.join(f"{2 * part:g}{unit}" for part in look.dash)


def _uprights(points: Sequence[Point]) -> list[Point]:
    """Join the two ends of each point's interval by a vertical line."""
    ends = ((Point(p.place, p.low), Point(p.place, p.high), GAP) for p in points)
    return [point for line in ends for point in line]


def _feet(points: Sequence[Point]) -> Json:
    """Put points without a value at the foot of the chart."""
    return {"y": [0.02] * len(points), "yaxis": "y2"}


def _told(points: Sequence[Point], label: str = "") -> Json:
    """Write the labels that a pointer brings up, below the layer's name."""
    values = ([f"{label} {plain(point.value)}"] if label else [] for point in points)
    texts = [broken([*value, *p.note]) for value, p in zip(values, points, strict=True)]
    return {"text": texts, "hoverinfo": "text"}


def label_head(layer: str) -> str:
    """Write the first lines of a label: a layer's name, a long one broken into lines."""
    parts = (layer[i : i + 38] for i in range(0, len(layer), 38))
    return f"<b>{broken(parts).removeprefix(_BREAK)}</b>"


def broken(lines: Iterable[str]) -> str:
    """Write lines below others; the page puts plotly's tag for each newline."""
    return "".join(_BREAK + escape(line, quote=False) for line in lines)


def layout(chart: Chart, *, mark: str | None) -> Json:
    """Frame all charts of a run, with `mark` across it."""
    found: Json = json.loads(asset("layout.json"))
    found["xaxis"]["range"] = [-0.5, len(chart.layers) - 0.5]
    found |= {"annotations": [], "shapes": []}
    paper = {"yref": "paper", "showarrow": False}
    if mark:
        place = {"x": 0.5, "y": 0.5, "xref": "paper", "textangle": -15, "opacity": 0.3}
        font = {"size": 40, "color": "@vermilion"}
        found["annotations"].append({"text": mark, "font": font, **paper, **place})
    if chart.skip is not None:
        text = f"skip enters {escape(chart.names[chart.skip], quote=False)}"
        place = {"x": chart.skip, "y": 1, "yanchor": "bottom", "font": {"size": 11}}
        found["annotations"].append({"text": text, **paper, **place})
        ends = {"type": "line", "x0": chart.skip, "x1": chart.skip}
        line = {"color": "@ink", "width": 1, "dash": "dot"}
        found["shapes"].append({**_UPRIGHT, **ends, "line": line})
    return found


_UPRIGHT: Json = {"type": "rect", "y0": 0, "y1": 1, "yref": "paper"}
SELECTION = _UPRIGHT | {"layer": "below", "line": {"width": 0}, "fillcolor": "@blue/0.13"}
"""A pale band behind the selected layer; the page gives its place."""


def asset(name: str) -> str:
    """Read a file of the page."""
    return (files("linprobe.report") / "assets" / name).read_text(encoding="utf-8")


def layer_ticks(chart: Chart, room: int, *, turned: bool) -> Json:
    """Name layers below the chart, for a width with room for so many of them."""
    places, names = named_places(len(chart.layers), room), chart.names
    texts = [escape(names[place], quote=False) for place in places]
    return {"tickvals": places, "ticktext": texts, "tickangle": -40 if turned else 0}


def log_axis() -> Json:
    """Set what a logarithmic scale has in place of the linear one's."""
    texts = [tick_text(tick) for tick in LOG_TICKS]
    return {"type": "log", "rangemode": "normal", "tickvals": LOG_TICKS, "ticktext": texts}


def swatch(look: Look) -> str:
    """Draw a look as SVG, for the key."""
    dash = _dash(look, "", " ") if look.dash != SOLID else "none"
    line = f'<line x2="34" y1="6" y2="6" stroke-dasharray="{dash}"/>' if look.dash else ""
    colour, shape = f"var(--{look.colour})", _SHAPES.get(look.marker, "")
    fill = colour if look.filled else "var(--surface)"
    frame = f'<svg width="34" height="12" aria-hidden="true" stroke="{colour}" fill="{fill}"'
    return f'{frame} stroke-width="2">{line}{shape}</svg>'
