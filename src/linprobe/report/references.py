"""What a curve is drawn beside: the network's own error and the controls, draws put together."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from linprobe.records.evidence import ControlRecord
from linprobe.records.schema import CheckpointRecord, RunRecord
from linprobe.report.style import CONTROL_LOOKS, NETWORK, Look

Scale = Literal["linear", "log"]

_SPREAD = 20  # rates that differ by more than this factor need a logarithmic scale
_WIDE = 3  # Wilson intervals


@dataclass(frozen=True)
class ReferencePoint:
    """A control at one layer: the mean of its draws, and their range.

    Attributes:
        layer: its name.
        place: number of the layer's probe among those of the checkpoint.
        value: mean test error rate.
        low: least of the draws.
        high: largest of the draws.
        draws: how many.
        selectivity: mean; None: none was recorded.
    """

    layer: str
    place: int
    value: float
    low: float
    high: float
    draws: int
    selectivity: float | None


@dataclass(frozen=True)
class Reference:
    """One line beside the curve.

    Attributes:
        look: how it is drawn.
        value: the same at all layers; None: `points` has one a layer.
        points: along the depth.
    """

    look: Look
    value: float | None = None
    points: tuple[ReferencePoint, ...] = ()

    @property
    def values(self) -> list[float]:
        """All rates of the line."""
        return [point.value for point in self.points] if self.value is None else [self.value]

    @property
    def label(self) -> str:
        """Its name, with its rate if there is but one."""
        name = self.look.label
        return name if self.value is None else f"{name}, {self.value:.4f}"


def references(run: RunRecord, checkpoint: CheckpointRecord) -> list[Reference]:
    """All lines of a checkpoint, in the order in which they are drawn and listed."""
    return list(_references(run, checkpoint))


def fitting_scale(
    run: RunRecord, checkpoints: Sequence[CheckpointRecord], *, alone: bool = False
) -> Scale:
    """Logarithmic if a linear scale would press the lowest rates flat; as in the report.

    Args:
        run: the record.
        checkpoints: those that are drawn.
        alone: the probes are drawn without references.
    """
    rates = [probe.test_error_rate for item in checkpoints for probe in item.probes]
    for item in () if alone else checkpoints:
        rates += [value for found in references(run, item) for value in found.values]
    rates = [rate for rate in rates if rate > 0]
    return "log" if rates and max(rates) > _SPREAD * min(rates) else "linear"


def optimum_is_close(checkpoints: Sequence[CheckpointRecord]) -> bool:
    """Whether the ranges of the exact optimum are narrow enough to be worth drawing.

    The bound is rigorous, and at small `l2` wide: bars over half of the axis would hide the curve
    and say little. They are drawn if the median one is at most `_WIDE` Wilson intervals wide.
    """
    widths = []
    for probe in (probe for item in checkpoints for probe in item.probes):
        found = probe.evaluation.optimum_error_interval if probe.evaluation else None
        statistical = probe.test_error_ci95[1] - probe.test_error_ci95[0]
        if found is not None and statistical > 0:
            widths.append((found[1] - found[0]) / statistical)
    return bool(widths) and statistics.median(widths) <= _WIDE


def _references(run: RunRecord, checkpoint: CheckpointRecord) -> Iterator[Reference]:
    own = checkpoint.network_test_error_rate
    if math.isfinite(own):
        yield Reference(NETWORK, own)
    names = dict.fromkeys(item.name for item in checkpoint.controls)
    majority = run.dataset.majority_error_rate
    if majority is not None and "majority" not in names:
        yield Reference(CONTROL_LOOKS["majority"], majority.test)
    places = {probe.layer: place for place, probe in enumerate(checkpoint.probes)}
    for name in names:
        look = CONTROL_LOOKS.get(name, Look(name, "muted", (2, 2), "o"))
        found = [
            item
            for item in checkpoint.controls
            if item.name == name and math.isfinite(item.test_error_rate)
        ]
        everywhere = [item for item in found if item.layer is None]
        if everywhere:
            yield Reference(look, _mean(everywhere))
        points = tuple(
            _point(layer, place, [item for item in found if item.layer == layer])
            for layer, place in places.items()
            if any(item.layer == layer for item in found)
        )
        if points:
            yield Reference(look, points=points)


def _point(layer: str, place: int, draws: Sequence[ControlRecord]) -> ReferencePoint:
    rates = [item.test_error_rate for item in draws]
    selectivities = [item.selectivity for item in draws if item.selectivity is not None]
    return ReferencePoint(
        layer=layer,
        place=place,
        value=_mean(draws),
        low=min(rates),
        high=max(rates),
        draws=len(draws),
        selectivity=sum(selectivities) / len(selectivities) if selectivities else None,
    )


def _mean(draws: Sequence[ControlRecord]) -> float:
    return sum(item.test_error_rate for item in draws) / len(draws)
