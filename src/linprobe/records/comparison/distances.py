"""Distances between curves, at the checkpoints and layers that all of them have.

Each is compared with the first, and with the published numbers in each reading of them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from linprobe.records.codec import to_json
from linprobe.records.comparison.curves import Curve, Panel, Point, subtract
from linprobe.records.published import Published, Reading
from linprobe.records.schema import RunRecord, Split
from linprobe.runtime.errors import LinprobeError

LOWER, UPPER = "lower half", "upper half"

_PUBLISHED = {"layer": "published", "input": "published (bar 0 = input)"}


@dataclass(frozen=True)
class Distance:
    """Distance of one curve from another at a checkpoint.

    Attributes:
        checkpoint: its name.
        curve: label.
        other: label of what is subtracted.
        differences: by layer, where both have a value.
        parts: layers below the skip connection ("lower half") and from it on ("upper half").
    """

    checkpoint: str
    curve: str
    other: str
    differences: dict[str, float]
    parts: dict[str, frozenset[str]]

    def mean_absolute(self, part: str | None = None) -> float:
        """Average the absolute differences, over all layers or one part; NaN without any."""
        layers = self.differences if part is None else self.parts.get(part, ())
        chosen = [abs(self.differences[layer]) for layer in self.differences if layer in layers]
        return sum(chosen) / len(chosen) if chosen else math.nan

    @property
    def largest(self) -> tuple[str, float] | None:
        """Layer and value of the difference of the largest size; None without any."""
        return max(self.differences.items(), key=lambda item: abs(item[1]), default=None)


@dataclass(frozen=True)
class Comparison:
    """Curves of one experiment, panel by panel.

    Attributes:
        split: of the error rates, "train" or "test".
        curves: the first is what the others are compared with.
        panels: one a checkpoint.
        published: None: not asked for.
        reading: of the published numbers that is drawn.
        left_out: what not all runs have, a sentence each.
    """

    split: Split
    curves: tuple[Curve, ...]
    panels: tuple[Panel, ...]
    published: Published | None = None
    reading: Reading = "layer"
    left_out: tuple[str, ...] = ()

    @property
    def first(self) -> RunRecord:
        """A run of the first curve."""
        return self.curves[0].runs[0]

    @property
    def runs(self) -> list[RunRecord]:
        """Runs of all curves."""
        return [run for curve in self.curves for run in curve.runs]

    @property
    def skip_layer(self) -> str | None:
        """Name of the layer that receives the skip connection; None: there is none."""
        return self.first.config.experiment.skip_layer

    def distances(self, panel: Panel) -> Iterator[Distance]:
        """Compare the other curves with the first, then each curve with each published reading."""
        parts = _halves(panel.layers, self.skip_layer)
        for index, curve in enumerate(self.curves[1:], 1):
            differences = subtract(panel.rates(index), panel.rates(0))
            yield Distance(panel.name, curve.label, self.curves[0].label, differences, parts)
        for index, curve in enumerate(self.curves):
            for reading, rates in panel.published.items():
                differences = subtract(panel.rates(index), rates)
                yield Distance(panel.name, curve.label, _PUBLISHED[reading], differences, parts)

    def rows(self) -> Iterator[dict[str, object]]:
        """Yield a row a checkpoint and layer, by column, for a table; None: unknown."""
        for panel in self.panels:
            for layer in panel.layers:
                row: dict[str, object] = dict(checkpoint=panel.name, step=panel.step, layer=layer)
                published = {
                    _PUBLISHED[reading]: panel.published.get(reading, {}).get(layer)
                    for reading in (self.published.readings if self.published else ())
                }
                others = published
                for index, curve in enumerate(self.curves):
                    point = panel.curves[index][layer]
                    cells = _cells(point, self.split, others)
                    row |= {f"{curve.label}: {name}": to_json(cell) for name, cell in cells.items()}
                    if index == 0:
                        others = {"first": point.error.mean, **published}
                yield row | published


def _cells(point: Point, split: Split, others: dict[str, float | None]) -> dict[str, object]:
    """Return the numbers of a point, with its distance from others."""
    error = point.error
    cells: dict[str, object] = {f"{split}_error_rate": error.mean}
    if error.n > 1:
        cells |= {"sd": error.sd, "min": error.low, "max": error.high, "n": error.n}
    cells |= {
        "l2": point.l2,
        "duality_gap": point.duality_gap,
        "train_cross_entropy": point.train_cross_entropy,
        "converged": point.converged,
    }
    return cells | {
        f"minus {name}": None if other is None else error.mean - other
        for name, other in others.items()
    }


def compare(
    curves: Sequence[Curve],
    *,
    published: Published | None = None,
    reading: Reading = "layer",
    checkpoint: str | None = None,
) -> Comparison:
    """Lay curves side by side.

    Args:
        curves: at least one, of one experiment and split.
        published: numbers to compare with.
        reading: of them that is to be drawn.
        checkpoint: compare at this one alone; None: at all that the curves share.

    Raises:
        LinprobeError: Different experiments, no checkpoint or layer in common, a checkpoint that
            a run doesn't have, or nothing published for these runs and checkpoints.
    """
    runs = [run for curve in curves for run in curve.runs]
    experiments = sorted({run.experiment for run in runs})
    if len(experiments) > 1:
        raise LinprobeError(
            f"the runs are of different experiments ({', '.join(experiments)}); expected one"
        )
    if published is not None:
        for run in runs:
            published.check(run)
    names = _shared_checkpoints(curves) if checkpoint is None else [checkpoint]
    for curve in curves:
        if names[0] not in curve.names():
            known = ", ".join(curve.names()) or "none yet"
            raise LinprobeError(f"{curve.label} has no checkpoint {checkpoint!r}; it has: {known}")
    panels = tuple(_panel(curves, name, published) for name in names)
    if published is not None and not any(panel.published for panel in panels):
        steps = ", ".join(f"{step:,}" for step in published.rates)
        raise LinprobeError(
            f"nothing is published for {', '.join(names)}; expected a checkpoint after {steps} "
            "minibatches: leave `published` out"
        )
    every = () if checkpoint else tuple(dict.fromkeys(n for c in curves for n in c.names()))
    left_out = tuple(_left_out(curves, panels, every))
    return Comparison(curves[0].split, tuple(curves), panels, published, reading, left_out)


def _shared_checkpoints(curves: Sequence[Curve]) -> list[str]:
    names = {curve.label: curve.names() for curve in curves}
    shared = [name for name in curves[0].names() if all(name in other for other in names.values())]
    if not shared:
        known = "; ".join(f"{label}: {', '.join(own) or 'none'}" for label, own in names.items())
        raise LinprobeError(f"the runs have no checkpoint in common ({known}); expected one")
    return shared


def _panel(curves: Sequence[Curve], name: str, published: Published | None) -> Panel:
    points = [curve.points(name) for curve in curves]
    layers = tuple(layer for layer in points[0] if all(layer in other for other in points))
    if not layers:
        pairs = zip(curves, points, strict=True)
        named = "; ".join(f"{c.label}: {', '.join(list(own)[:3]) or 'none'}" for c, own in pairs)
        raise LinprobeError(
            f"the runs have no layer in common at checkpoint {name!r} ({named} ...); expected "
            "runs of the same network"
        )
    steps = {item.step for curve in curves for item in curve.checkpoints(name)}
    step = steps.pop() if len(steps) == 1 else None
    known = published.rates.get(step, {}) if published is not None and step is not None else {}
    return Panel(name, step, layers, tuple(points), known)


def _left_out(
    curves: Sequence[Curve], panels: Sequence[Panel], checkpoints: Sequence[str]
) -> Iterator[str]:
    """Say which of the checkpoints and of the panels' layers not all curves have."""
    for name in checkpoints:
        without = ", ".join(curve.label for curve in curves if name not in curve.names())
        if without:
            yield f"Checkpoint {name} is left out: {without} doesn't have it."
    for panel in panels:
        for curve, points in zip(curves, panel.curves, strict=True):
            if more := len(points) - len(panel.layers):
                left = f"{more} layers of {curve.label} are left out"
                yield f"{panel.name}: {left}: not all runs have them."


def _halves(layers: Sequence[str], skip_layer: str | None) -> dict[str, frozenset[str]]:
    if skip_layer is None or skip_layer not in layers:
        return {}
    index = list(layers).index(skip_layer)
    return {LOWER: frozenset(layers[:index]), UPPER: frozenset(layers[index:])}
