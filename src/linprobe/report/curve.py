"""Test error along the depth, on one pair of axes: probes, their intervals, what they compare to.

It shows what the report's curve shows, in the same colours, dashes and words.
"""

import math
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes

from linprobe.records.evidence import UNDECIDED
from linprobe.records.schema import CheckpointRecord, ProbeRecord, RunRecord
from linprobe.report import wording
from linprobe.report.references import Reference, Scale, optimum_is_close, references
from linprobe.report.style import BLUE, INK, LABEL_BOX, LIGHT, OPTIMUM_LABEL, PROBE_LOOKS, VERMILION

_MAX_NAMED = 16  # layers that are all named on the axis
_LOG_TICKS = [digit * 10.0**power for power in range(-6, 1) for digit in (1, 2, 5)]


def draw_curve(
    axes: Axes,
    run: RunRecord,
    checkpoint: CheckpointRecord,
    scale: Scale,
    *,
    inches: float,
    alone: bool,
    controls: bool = True,
) -> None:
    """Draw one checkpoint.

    Args:
        axes: empty ones.
        run: for the size of the test split and the rate of the commonest class.
        checkpoint: with at least one probe.
        scale: of the error; a linear one starts at 0 and holds the probes and, of what else there
            is, what fits beside them; a logarithmic one holds everything.
        inches: width of the axes, which decides whether values can be written at the points.
        alone: the key can name values: no other checkpoint shares it, and there is room.
        controls: a linear scale holds the controls that the run was asked for, too.
    """
    probes = checkpoint.probes
    floor = wording.least_rate(run) if scale == "log" else 0.0
    beside = references(run, checkpoint)
    if scale == "linear":
        highest = [_or(probe.test_error_ci95[1], 0.0) for probe in probes]
        if controls:
            highest += [_or(control.test_error_rate, 0.0) for control in checkpoint.controls]
        top = min(1.0, 1.15 * (max(highest) or 1.0))
        axes.set_ylim(0, top)
        beside = [found for found in beside if found.values and max(found.values) <= top]
    else:
        make_logarithmic(axes)
    for found in beside:
        _draw_reference(axes, found, floor, crowded=_crowded(probes), alone=alone)
    if optimum_is_close(run.checkpoints):
        _draw_optimum(axes, probes, floor)
    _draw_line(axes, checkpoint, floor)
    _draw_points(axes, probes, floor)
    if scale == "log":
        _fit_log(axes, probes, beside, floor)
    if inches / len(probes) > 0.045 * matplotlib.rcParams["font.size"]:
        _write_values(axes, probes, floor)
    draw_lost(axes, [i for i, p in enumerate(probes) if not math.isfinite(p.test_error_rate)])
    name_layers(axes, [probe.layer for probe in probes])


def make_logarithmic(axes: Axes) -> None:
    """Give the error a logarithmic scale with plain numbers."""
    axes.set_yscale("log")
    axes.set_yticks(_LOG_TICKS, [f"{tick:.6f}".rstrip("0").rstrip(".") for tick in _LOG_TICKS])
    axes.minorticks_off()


def _or(value: float, other: float) -> float:
    return value if math.isfinite(value) else other


def _fit_log(
    axes: Axes, probes: Sequence[ProbeRecord], beside: Sequence[Reference], floor: float
) -> None:
    """Limits around all rates and intervals; the ticks would set some of their own."""
    found = [value for item in beside for value in item.values]
    for probe in probes:
        found += [probe.test_error_rate, *probe.test_error_ci95]
    rates = [max(rate, floor) for rate in found if math.isfinite(rate)] or [0.1, 1.0]
    axes.set_ylim(min(rates) / 1.3, max(rates) * 1.35)


def _draw_reference(
    axes: Axes, found: Reference, floor: float, *, crowded: bool, alone: bool
) -> None:
    look, width = found.look, matplotlib.rcParams["lines.linewidth"]
    kind = {"color": LIGHT[look.colour], "linestyle": (0, look.dash), "linewidth": 0.8 * width}
    label = found.label if alone else look.label
    if found.value is not None:
        axes.axhline(max(found.value, floor), zorder=1.5, label=label, **kind)
        return
    axes.plot(
        [point.place for point in found.points],
        [max(point.value, floor) for point in found.points],
        marker=None if crowded else look.marker,
        markersize=0.5 * matplotlib.rcParams["lines.markersize"],
        zorder=1.6,
        label=label,
        **kind,
    )
    if any(point.draws > 1 for point in found.points):
        axes.vlines(
            [point.place for point in found.points],
            [max(point.low, floor) for point in found.points],
            [max(point.high, floor) for point in found.points],
            color=LIGHT[look.colour],
            linewidth=0.6 * width,
        )


def _draw_optimum(axes: Axes, probes: Sequence[ProbeRecord], floor: float) -> None:
    """A wide pale bar where the exact optimum's test error must lie."""
    known = [
        (place, probe.evaluation.optimum_error_interval)
        for place, probe in enumerate(probes)
        if probe.evaluation and probe.evaluation.optimum_error_interval
    ]
    if known:
        axes.vlines(
            [place for place, _ in known],
            [max(low, floor) for _, (low, _) in known],
            [max(high, floor) for _, (_, high) in known],
            color=LIGHT["orange"],
            alpha=0.45,
            linewidth=(1.5 if _crowded(probes) else 5) * matplotlib.rcParams["lines.linewidth"],
            label=OPTIMUM_LABEL,
            zorder=1.8,
        )


def _draw_line(axes: Axes, checkpoint: CheckpointRecord, floor: float) -> None:
    """Solid from layer to layer where the paired test finds a change, dotted where it doesn't."""
    probes = checkpoint.probes
    same = {step.to_layer for step in checkpoint.steps if step.verdict == UNDECIDED}
    width = matplotlib.rcParams["lines.linewidth"]
    for dotted in (False, True):
        x: list[float] = []
        y: list[float] = []
        for place in range(1, len(probes)):
            if (probes[place].layer in same) is dotted:
                pair = (probes[place - 1].test_error_rate, probes[place].test_error_rate)
                x += [place - 1, place, math.nan]
                y += [max(pair[0], floor), max(pair[1], floor), math.nan]
        axes.plot(
            x,
            y,
            color=BLUE,
            linestyle=(0, (1, 1.6)) if dotted else "-",
            linewidth=width,
            label="no change found" if dotted and x else None,
        )


def _draw_points(axes: Axes, probes: Sequence[ProbeRecord], floor: float) -> None:
    """Rates with their Wilson intervals; hollow where the certificate isn't as asked for."""
    width, size = matplotlib.rcParams["lines.linewidth"], matplotlib.rcParams["lines.markersize"]
    crowded = _crowded(probes)
    for standing, look in PROBE_LOOKS.items():
        colour = LIGHT[look.colour]
        chosen = [
            (place, max(probe.test_error_rate, floor), probe.test_error_ci95)
            for place, probe in enumerate(probes)
            if probe.standing == standing and math.isfinite(probe.test_error_rate)
        ]
        if chosen:
            rates = [rate for _, rate, _ in chosen]
            axes.errorbar(
                [place for place, _, _ in chosen],
                rates,
                yerr=[
                    [max(0.0, rate - max(interval[0], floor)) for _, rate, interval in chosen],
                    [max(0.0, interval[1] - rate) for _, rate, interval in chosen],
                ],
                fmt=look.marker,
                color=colour if look.filled else BLUE,
                markersize=(0.5 if crowded else 1) * size,
                markerfacecolor=colour if look.filled else "white",
                markeredgecolor=colour,
                elinewidth=0.7 * width,
                capsize=0 if crowded else 0.7 * size,
                label=look.label,
                zorder=3,
            )


def draw_lost(axes: Axes, lost: Sequence[int]) -> None:
    """A cross at the foot at each place whose probe is without a value."""
    if lost:
        axes.plot(
            lost,
            [0.02] * len(lost),
            "x",
            color=VERMILION,
            markersize=1.6 * matplotlib.rcParams["lines.markersize"],
            markeredgewidth=1.2 * matplotlib.rcParams["lines.linewidth"],
            transform=axes.get_xaxis_transform(),
            label="no value",
            zorder=5,
        )


def _write_values(axes: Axes, probes: Sequence[ProbeRecord], floor: float) -> None:
    for place, probe in enumerate(probes):
        if math.isfinite(probe.test_error_rate):
            axes.annotate(
                f"{probe.test_error_rate:.4f}",
                (place, max(probe.test_error_ci95[1], floor)),
                xytext=(0, 0.4 * matplotlib.rcParams["font.size"]),
                textcoords="offset points",
                ha="center",
                fontsize=0.78 * matplotlib.rcParams["font.size"],
                color=INK,
                bbox=LABEL_BOX,
                zorder=4,
            )


def _crowded(probes: Sequence[ProbeRecord]) -> bool:
    return len(probes) > 40


def name_layers(axes: Axes, layers: Sequence[str]) -> None:
    """All names where they fit; else the first, the last and some at round distances."""
    names = wording.short_names(layers, 22)
    last = len(names) - 1
    steps = (1, 2, 5, 10, 16, 32, 64, 128, 256, 512, last + 1)
    step = next(step for step in steps if last / step < _MAX_NAMED)
    places = [place for place in range(0, last, step) if last - place > step / 2]
    ticks = [*places, last]
    axes.set_xticks(
        ticks,
        [names[place] for place in ticks],
        rotation=40,
        ha="right",
        rotation_mode="anchor",
    )
    axes.set_xlim(-0.5, last + 0.5)
