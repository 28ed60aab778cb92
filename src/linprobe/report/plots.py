"""The paper's figures, drawn from a run's record: records in, matplotlib figures out.

Nothing is read, written or set globally, except by `save_figure`, which writes. A probe that is
not converged is marked wherever it is drawn, and so is a quick run.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from linprobe.errors import LinprobeError
from linprobe.files import replacing
from linprobe.report.style import BLUE, GREEN, INK, LABEL_BOX, MUTED, STYLE, VERMILION
from linprobe.results import CheckpointRecord, ProbeRecord, RunRecord

Split = Literal["test", "train"]

_MAX_LABELLED_BARS = 12


@matplotlib.rc_context(STYLE)
def figure5(run: RunRecord, checkpoint_name: str) -> Figure:
    """Test error of a probe at each probe point, for one checkpoint (Figure 5a or 5b).

    Each panel has its own scale, from 0: the error of an untrained network's logits would press
    a trained network's curve flat. Each point has its value beside it.

    Args:
        run: the record; its `config` may hold "recipe".
        checkpoint_name: which checkpoint to draw.

    Raises:
        LinprobeError: The run has no such checkpoint, or it has no probes.
    """
    checkpoint = _with_probes(run, checkpoint_name)
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    _draw_curve(axes, checkpoint.probes)
    top = 1.15 * max(_finite([probe.test_error_ci95[1] for probe in checkpoint.probes]))
    axes.set_ylim(0, min(top, 1.0))
    axes.set_xlim(-0.5, len(checkpoint.probes) - 0.5)
    _draw_network(axes, checkpoint.network_test_error_rate)
    layers = [probe.layer for probe in checkpoint.probes]
    axes.set_xticks(range(len(layers)), layers, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_ylabel("test prediction error")
    recipe = run.config.get("recipe")
    axes.set_title(_state(checkpoint) + (f", {recipe} recipe" if recipe else ""))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper center")
    _mark(figure, run)
    return figure


@matplotlib.rc_context(STYLE)
def figure8(run: RunRecord, split: Split = "test") -> Figure:
    """Error of a probe at each layer of the deep network, a panel a checkpoint (Figure 8a-c).

    Bars stand for the input, layer 1 to L, and the logits, in this order. The paper's axis says
    train error; both versions come from here.

    Args:
        run: the record; its `config` holds "skip_layer", the name of the layer that receives
            the skip connection, and its `dataset` may hold "majority_error_rate".
        split: "test" or "train".

    Raises:
        LinprobeError: The run has no checkpoints, or another split is asked for.
    """
    if split not in ("test", "train"):
        raise LinprobeError(f"split is {split!r}; expected 'test' or 'train'")
    if not run.checkpoints:
        raise LinprobeError("the run has no checkpoints; expected at least one to draw")
    panels = len(run.checkpoints)
    figure = Figure(figsize=(0.6 + 4.1 * panels, 3.7), layout="constrained")
    grid = figure.subplots(1, panels, sharex=True, sharey=True, squeeze=False)[0]
    for axes, checkpoint in zip(grid, run.checkpoints, strict=True):
        _draw_bars(axes, checkpoint.probes, split)
        _mark_skip(axes, checkpoint.probes, run.config.get("skip_layer"))
        _draw_majority(axes, run, split)
        axes.set_title(_state(checkpoint))
    grid[0].set_ylim(0, 1.0)
    grid[0].set_ylabel(f"{split} prediction error of the probe")
    handles, labels = _legend_entries(grid)
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
    _mark(figure, run)
    return figure


@matplotlib.rc_context(STYLE)
def save_figure(figure: Figure, stem: Path) -> tuple[Path, ...]:
    """Write `figure` as `stem`.png and `stem`.svg, each whole or not at all.

    Returns:
        The two paths.
    """
    written = []
    for kind in ("png", "svg"):
        path = stem.with_name(f"{stem.name}.{kind}")
        with replacing(path) as temporary:
            # Without a date, the same record gives the same bytes.
            metadata = {"Date": None} if kind == "svg" else None
            figure.savefig(temporary, format=kind, metadata=metadata)
        written.append(path)
    return tuple(written)


# Figure 5


def _draw_curve(axes: Axes, probes: Sequence[ProbeRecord]) -> None:
    places = range(len(probes))
    rates = [probe.test_error_rate for probe in probes]
    low = [probe.test_error_rate - probe.test_error_ci95[0] for probe in probes]
    high = [probe.test_error_ci95[1] - probe.test_error_rate for probe in probes]
    axes.plot(places, rates, color=BLUE, linewidth=1.2)
    axes.errorbar(places, rates, yerr=[low, high], fmt="none", ecolor=BLUE, capsize=3, elinewidth=1)
    for place, probe in zip(places, probes, strict=True):
        if math.isfinite(probe.test_error_rate):
            face = BLUE if probe.converged else "white"
            edge = BLUE if probe.converged else VERMILION
            axes.plot(place, probe.test_error_rate, "o", mfc=face, mec=edge, mew=1.4, ms=5.5)
            axes.annotate(
                f"{probe.test_error_rate:.4f}",
                (place, probe.test_error_ci95[1]),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                fontsize=7,
                color=INK,
                bbox=LABEL_BOX,
            )
    unfinished = [(i, probe) for i, probe in enumerate(probes) if not probe.converged]
    if unfinished:
        axes.plot(
            [i for i, _ in unfinished],
            [p.test_error_rate if math.isfinite(p.test_error_rate) else 0 for _, p in unfinished],
            "x",
            color=VERMILION,
            ms=9,
            mew=1.6,
            label="not converged",
            clip_on=False,
            zorder=5,
        )


def _draw_network(axes: Axes, rate: float) -> None:
    """A line at the network's own error, where it lies on the scale of the probes."""
    if rate < axes.get_ylim()[1]:
        axes.axhline(rate, color=GREEN, linestyle="--", linewidth=1.0, zorder=1)
        axes.text(
            0.01,
            rate,
            f"the network's own error, {rate:.4f}",
            transform=axes.get_yaxis_transform(),
            va="bottom",
            color=GREEN,
            fontsize=8,
        )


# Figure 8


def _draw_bars(axes: Axes, probes: Sequence[ProbeRecord], split: Split) -> None:
    places = range(len(probes))
    for converged, colour, hatch, label in (
        (True, BLUE, None, "probe, certified optimum"),
        (False, VERMILION, "////", "probe, not converged"),
    ):
        chosen = [i for i in places if probes[i].converged is converged]
        if not chosen:
            continue
        rates = [_rate(probes[i], split) for i in chosen]
        heights = [rate if math.isfinite(rate) else 0.0 for rate in rates]
        # White gaps between few bars; between many they would only thin the colour.
        width = 0.8 if len(probes) <= 2 * _MAX_LABELLED_BARS + 8 else 1.0
        axes.bar(
            chosen,
            heights,
            width,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0,
            label=label,
        )
        blank = [i for i, rate in zip(chosen, rates, strict=True) if not math.isfinite(rate)]
        axes.plot(blank, [0.02] * len(blank), "x", color=VERMILION, ms=7, mew=1.6)
    axes.set_xlim(-1, len(probes))
    ticks, labels, rotate = _bar_ticks([probe.layer for probe in probes])
    turned: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(ticks, labels, **(turned if rotate else {}))
    axes.set_xlabel("probe point" if rotate else "probe point (number of the layer)")


def _bar_ticks(layers: Sequence[str]) -> tuple[list[int], list[str], bool]:
    """All names where they fit; else first, last, and layers at round numbers between them."""
    last = len(layers) - 1
    if last < _MAX_LABELLED_BARS:
        return list(range(last + 1)), list(layers), True
    step = next(s for s in (5, 10, 16, 32, 64, 128, 256, 512, last) if (last - 1) / s <= 8)
    inner = [i for i in range(step, last, step) if last - i > step / 2]
    names = [layers[0], *(str(i) for i in inner), layers[-1]]
    return [0, *inner, last], names, False


def _mark_skip(axes: Axes, probes: Sequence[ProbeRecord], skip_layer: object) -> None:
    places = [i for i, probe in enumerate(probes) if probe.layer == skip_layer]
    for place in places:
        axes.annotate(
            f"skip enters\n{skip_layer}",
            (place, 0.005),
            xycoords=("data", "axes fraction"),
            xytext=(place, 0.955),
            textcoords=("data", "axes fraction"),
            ha="center",
            va="center",
            fontsize=7.5,
            color=INK,
            linespacing=1.1,
            arrowprops={"arrowstyle": "-", "linestyle": ":", "color": INK, "linewidth": 1.0},
        )


def _draw_majority(axes: Axes, run: RunRecord, split: Split) -> None:
    rate = run.dataset.get("majority_error_rate", {}).get(split)
    if rate is not None:
        axes.axhline(
            rate, color=MUTED, linestyle="--", linewidth=1.0, label="always the commonest class"
        )


def _legend_entries(grid: Sequence[Axes]) -> tuple[list[Artist], list[str]]:
    """Each label once, whichever panel it stands in."""
    found: dict[str, Artist] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


# Both


def _with_probes(run: RunRecord, name: str) -> CheckpointRecord:
    checkpoint = run.checkpoint(name)
    if not checkpoint.probes:
        raise LinprobeError(f"checkpoint {name!r} has no probes; expected at least one to draw")
    return checkpoint


def _rate(probe: ProbeRecord, split: Split) -> float:
    return probe.test_error_rate if split == "test" else probe.train_error_rate


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)] or [1.0]


def _state(checkpoint: CheckpointRecord) -> str:
    if checkpoint.step == 0:
        return "untrained"
    return f"after {checkpoint.step:,} minibatches"


def _mark(figure: Figure, run: RunRecord) -> None:
    """Say what was drawn, and across the whole figure if it is not a result."""
    data, seed = run.dataset, run.seed
    size = f"{data.get('num_train', 0):,} training and {data.get('num_test', 0):,} test samples"
    if run.quick:
        for axes in figure.axes:
            _watermark(axes)
        note = f"QUICK RUN, not a result: {data.get('name')}, {size}, seed {seed}"
        figure.suptitle(note, fontsize=8, color=VERMILION, weight="bold")
    else:
        figure.suptitle(f"{data.get('name')}, {size}, seed {seed}", fontsize=8, color=MUTED)


def _watermark(axes: Axes) -> None:
    axes.text(
        0.5,
        0.5,
        "QUICK RUN",
        transform=axes.transAxes,
        ha="center",
        va="center",
        fontsize=30,
        rotation=18,
        color=VERMILION,
        alpha=0.25,
        weight="bold",
        zorder=10,
    )
