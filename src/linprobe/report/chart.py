"""The one chart: what is drawn of a checkpoint, computed from its record, in no program's terms.

Matplotlib (`linprobe.report.curve` and `bars`), the page (`linprobe.report.interactive`) and the
terminal (`linprobe.report.textcurve`) draw it. Which scale fits, where it ends and which layers it
names is decided here; what is solid, dotted, hollow or crossed in `linprobe.report.building`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from linprobe.report.names import short_names
from linprobe.report.style import Look

Scale = Literal["linear", "log"]

CROWDED = 40  # more layers have small marks without caps
_NAME_LENGTH = 22  # letters of a layer's name on an axis
LOG_TICKS = [digit * 10.0**power for power in range(-6, 3) for digit in (1, 2, 5)]
_SPREAD = 20  # values that differ by more than this factor need a logarithmic scale
_LOG_MARGINS = (1.3, 1.35)  # below and above, as factors
_STEPS = (1, 2, 5, 10, 16, 32, 64, 128, 256, 512)  # between layers that are named


@dataclass(frozen=True)
class Point:
    """One value at one layer.

    Attributes:
        place: number of the layer, from 0; NaN: here the line is interrupted.
        value: NaN: none.
        low: end of its interval or range; NaN: it has none.
        high: the other end.
        note: what else is to be said of it, a few words each.
    """

    place: float
    value: float
    low: float = math.nan
    high: float = math.nan
    note: tuple[str, ...] = ()


Role = Literal["reference", "optimum", "curve", "probes", "lost"]

GAP = Point(math.nan, math.nan)


@dataclass(frozen=True)
class Series:
    """Points of one look.

    Attributes:
        role: what they are.
        look: how they are drawn.
        points: in the order of the layers.
        value: the same at all layers, and then `points` is empty; None: `points` has them.
        recorded: it is a control that the run was asked for.
    """

    role: Role
    look: Look
    points: tuple[Point, ...] = ()
    value: float | None = None
    recorded: bool = False

    @property
    def values(self) -> list[float]:
        """List the values that are known, without ends of intervals."""
        found = [point.value for point in self.points] if self.value is None else [self.value]
        return [value for value in found if math.isfinite(value)]

    @property
    def label(self) -> str:
        """Name it, with its value if there is but one."""
        name = self.look.label
        return name if self.value is None else f"{name}, {self.value:.4f}"


@dataclass(frozen=True)
class Chart:
    """One measure of one checkpoint along the depth.

    Attributes:
        layers: names, by place.
        axis: name of the measure with its unit.
        series: in the order of drawing.
        floor: least value of a logarithmic scale.
        skip: place of the layer that receives a skip connection; None: there is none.
        optimum_is_close: the ranges of the exact optimum are narrow enough to be worth drawing.
        scale: of the measure.
        rising: the higher, the better: zero is nothing to look at closely.
    """

    layers: tuple[str, ...]
    axis: str
    series: tuple[Series, ...]
    floor: float
    skip: int | None = None
    optimum_is_close: bool = False
    scale: Scale = "linear"
    rising: bool = False

    @property
    def crowded(self) -> bool:
        """Tell whether there are so many layers that marks are small."""
        return len(self.layers) > CROWDED

    @property
    def names(self) -> list[str]:
        """Shorten the names of the layers for an axis."""
        return short_names(self.layers, _NAME_LENGTH)

    def of(self, *roles: Role) -> list[Series]:
        """List the series of these roles."""
        return [item for item in self.series if item.role in roles]

    def placed(self, value: float) -> float:
        """Lift a value onto the scale: a logarithmic one has no zero."""
        return max(value, self.floor) if self.scale == "log" else value

    def values(self) -> list[float]:
        """List the values of the probes by place; NaN where there is none."""
        found = dict.fromkeys(range(len(self.layers)), math.nan)
        points = (point for item in self.of("probes") for point in item.points)
        return list((found | {int(point.place): point.value for point in points}).values())

    def fitted(self, scale: Scale, *, controls: bool = True) -> tuple["Chart", float, float]:
        """Put it on a scale that holds what it should.

        Args:
            scale: a linear one starts at 0, or below the least value, and holds the probes, and of
                the references those that fit beside them; a logarithmic one holds everything.
            controls: a linear scale holds the recorded controls, too.

        Returns:
            The chart, without references that don't fit and without ranges of the optimum that
            are too wide, and the two ends of its scale.
        """
        kept = [i for i in self.series if i.role != "optimum" or self.optimum_is_close]
        probes = [point for item in self.of("probes") for point in item.points]
        if scale == "log":
            found = [value for item in self.of("reference") for value in item.values]
            found += [end for point in probes for end in (point.value, point.low, point.high)]
            chart = replace(self, scale="log", series=tuple(kept))
            return chart, *log_limits(found, self.floor)
        highest = [point.high for point in probes]
        if controls:
            recorded = (item for item in self.of("reference") if item.recorded)
            highest += [value for item in recorded for value in item.values]
        top = min(1.0, 1.15 * (max(filter(math.isfinite, highest), default=0.0) or 1.0))
        fits = [i for i in kept if i.role != "reference" or max(i.values) <= top]
        ends = (end for point in probes for end in (point.value, point.low))
        least = min(filter(math.isfinite, ends), default=0.0)
        return replace(self, scale="linear", series=tuple(fits)), min(0.0, 1.15 * least), top


def log_limits(values: Iterable[float], floor: float) -> tuple[float, float]:
    """Find the ends of a logarithmic scale around all values that are known."""
    found = [max(value, floor) for value in values if math.isfinite(value)] or [0.1, 1.0]
    return min(found) / _LOG_MARGINS[0], max(found) * _LOG_MARGINS[1]


def needed_scale(values: Iterable[float]) -> Scale:
    """Choose a logarithmic scale if a linear one would press the least positive values flat."""
    found = [value for value in values if value > 0]
    return "log" if found and max(found) > _SPREAD * min(found) else "linear"


def fitting_scale(charts: Sequence[Chart], *, alone: bool = False) -> Scale:
    """Choose the scale that suits several charts; `alone`: without their references."""
    if any(chart.rising for chart in charts):
        return "linear"
    roles: tuple[Role, ...] = ("probes",) if alone else ("probes", "reference")
    return needed_scale(v for chart in charts for item in chart.of(*roles) for v in item.values)


def tick_text(tick: float) -> str:
    """Write a tick of a logarithmic scale as a plain number."""
    return f"{tick:.6f}".rstrip("0").rstrip(".")


def named_places(count: int, room: int) -> list[int]:
    """Choose the layers that an axis names: all where they fit, else at round distances.

    The first and the last are always among them.

    Args:
        count: layers.
        room: how many names fit, the last one not counted.
    """
    last = count - 1
    step = next((step for step in _STEPS if last / step < room), last + 1)
    return [*(place for place in range(0, last, step) if last - place > step / 2), last]
