"""Errors of many probes as bars, a panel a checkpoint, as in the paper's Figure 8."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes

from linprobe.records.schema import ProbeRecord, RunRecord, Split
from linprobe.report.style import CONTROL_LOOKS, INK, LIGHT, PROBE_LOOKS, VERMILION
from linprobe.report.wording import short_names

_MAX_LABELLED = 12


def draw_bars(axes: Axes, probes: Sequence[ProbeRecord], split: Split, *, inches: float) -> None:
    """Draw the error of each probe; a cross stands for one without a value.

    Args:
        axes: empty ones.
        probes: along the depth.
        split: "test" or "train".
        inches: width of the axes, which decides how many ticks have room.
    """
    places = range(len(probes))
    for standing, look in PROBE_LOOKS.items():
        chosen = [i for i in places if probes[i].standing == standing]
        if not chosen:
            continue
        rates = [probes[i].error_rate(split) for i in chosen]
        heights = [rate if math.isfinite(rate) else 0.0 for rate in rates]
        # White gaps between few bars; between many they would only thin the colour.
        width = 0.8 if len(probes) <= 2 * _MAX_LABELLED + 8 else 1.0
        axes.bar(
            chosen,
            heights,
            width,
            color=LIGHT[look.colour],
            hatch=look.hatch,
            edgecolor="white",
            linewidth=0,
            label=look.label,
        )
        blank = [i for i, rate in zip(chosen, rates, strict=True) if not math.isfinite(rate)]
        size = 1.6 * matplotlib.rcParams["lines.markersize"]
        axes.plot(blank, [0.02] * len(blank), "x", color=VERMILION, markersize=size)
    axes.set_xlim(-1, len(probes))
    ticks, labels, rotate = _bar_ticks([probe.layer for probe in probes], inches)
    turned: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(ticks, labels, **(turned if rotate else {}))
    axes.set_xlabel("probe point" if rotate else "probe point (number of the layer)")


def _bar_ticks(layers: Sequence[str], inches: float) -> tuple[list[int], list[str], bool]:
    """All names where they fit; else first, last, and layers at round numbers between them."""
    last = len(layers) - 1
    if last < _MAX_LABELLED:
        return list(range(last + 1)), short_names(layers, 22), True
    room = 72 * inches / (3.2 * matplotlib.rcParams["font.size"]) - 0.7
    step = next(s for s in (5, 10, 16, 32, 64, 128, 256, 512, last) if (last - 1) / s <= room)
    inner = [i for i in range(step, last, step) if last - i > step / 2]
    names = [layers[0], *(str(i) for i in inner), layers[-1]]
    return [0, *inner, last], names, False


def mark_skip(axes: Axes, layers: Sequence[str], skip_layer: str | None) -> None:
    """Mark the layer of that name, which receives the skip connection."""
    places = [i for i, layer in enumerate(layers) if layer == skip_layer]
    for place in places:
        axes.annotate(
            f"skip enters\n{skip_layer}",
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


def draw_majority(axes: Axes, run: RunRecord, split: Split) -> None:
    """Draw the error of always saying the commonest class, if it is known."""
    majority = run.dataset.majority_error_rate
    if majority is not None:
        look = CONTROL_LOOKS["majority"]
        axes.axhline(
            majority.error_rate(split),
            color=LIGHT[look.colour],
            linestyle=(0, look.dash),
            linewidth=0.8 * matplotlib.rcParams["lines.linewidth"],
            label=look.label,
        )
