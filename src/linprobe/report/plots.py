"""Figures drawn from a run's record: records in, matplotlib figures out.

Nothing is read, written or set globally, except by `save_figure` and `write_figure`, which write.
A probe that is not a certified optimum is marked wherever it is drawn, and so is a quick run.
"""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from linprobe.records.schema import CheckpointRecord, RunRecord, Split
from linprobe.report import wording
from linprobe.report.bars import draw_bars
from linprobe.report.building import build_chart
from linprobe.report.chart import Scale, fitting_scale
from linprobe.report.curve import draw_curve
from linprobe.report.measures import ERRORS, TEST_ERROR, Measure, chosen
from linprobe.report.style import (
    COLUMN,
    MUTED,
    PAGE,
    ROW,
    SLIDE,
    STYLE,
    STYLES,
    VERMILION,
    StyleName,
)
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.files import atomic_write

Format = Literal["pdf", "svg", "png"]
FORMATS: tuple[Format, ...] = ("pdf", "svg", "png")

_MOST_COLUMNS = 3
# Without dates, the same record gives the same bytes.
_METADATA: dict[Format, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}

__all__ = ["FORMATS", "Format", "Split", "draw_run", "figure5", "figure8"]
__all__ += ["finish", "save_figure", "write_figure"]


def draw_run(
    run: RunRecord,
    checkpoint: str | None = None,
    style: StyleName | None = None,
    metric: str | None = None,
) -> Figure:
    """Draw the figure that suits a run: bars for the paper's Figure 8, else curves.

    Args:
        run: the record.
        checkpoint: draw the curve of this one; None: all, a panel each.
        style: of a paper, or of slides; None: of a page that is read on a screen.
        metric: name of the metric to draw, as curves; None: the test error.

    Raises:
        LinprobeError: The run has no such checkpoint or metric, or nothing to draw.
    """
    measure = chosen(run, metric)
    if run.config.experiment.chart == "bars" and checkpoint is None and measure is TEST_ERROR:
        return figure8(run, style=style)
    names = [item.name for item in run.checkpoints] if checkpoint is None else [checkpoint]
    if not names:
        raise LinprobeError("the run has no checkpoints; expected at least one to draw")
    shown = [_with_probes(run, name) for name in names]
    scale = fitting_scale([build_chart(run, item, measure) for item in shown])
    return _curves(run, shown, scale, style, measure=measure)


def figure5(run: RunRecord, checkpoint_name: str, style: StyleName | None = None) -> Figure:
    """Draw the test error at each probe point of one checkpoint (Figure 5a or 5b).

    Each panel has its own linear scale, from 0: the error of an untrained network's logits would
    press a trained network's curve flat; so would controls, of which it shows those that fit. Each
    point has its value beside it where there is room.

    Args:
        run: the record; its experiment may have a recipe.
        checkpoint_name: which checkpoint to draw.
        style: see `draw_run`.

    Raises:
        LinprobeError: The run has no such checkpoint, or it has no probes.
    """
    return _curves(run, [_with_probes(run, checkpoint_name)], "linear", style, controls=False)


def figure8(run: RunRecord, split: Split = "test", style: StyleName | None = None) -> Figure:
    """Draw the error at each layer of the deep network, a panel a checkpoint (Figure 8a-c).

    Bars stand for the input, layer 1 to L, and the logits, in this order. The paper's axis says
    train error; both versions come from here.

    Args:
        run: the record; its experiment names the layer that receives the skip connection.
        split: "test" or "train".
        style: see `draw_run`.

    Raises:
        LinprobeError: The run has no checkpoints, or another split is asked for.
    """
    if split not in ("test", "train"):
        raise LinprobeError(f"split is {split!r}; expected 'test' or 'train'")
    if not run.checkpoints:
        raise LinprobeError("the run has no checkpoints; expected at least one to draw")
    panels = len(run.checkpoints)
    sizes = {"paper": (PAGE, ROW), "slides": SLIDE}
    size = sizes.get(str(style), (0.6 + 4.1 * panels, 3.7))
    with matplotlib.rc_context(_settings(style)):
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(1, panels, sharex=True, sharey=True, squeeze=False)[0]
        for axes, checkpoint in zip(grid, run.checkpoints, strict=True):
            chart = build_chart(run, checkpoint, ERRORS[split])
            draw_bars(axes, chart, inches=0.85 * size[0] / panels)
            axes.set_title(wording.panel_title(checkpoint.name, checkpoint.step))
        grid[0].set_ylim(0, 1.0)
        grid[0].set_ylabel(f"{split} prediction error of the probe")
        _finish(figure, run, grid)
    return figure


def save_figure(figure: Figure, stem: Path) -> tuple[Path, ...]:
    """Write `figure` as `stem`.png and `stem`.svg, each whole or not at all.

    Returns:
        The two paths.
    """
    kinds: tuple[Format, ...] = ("png", "svg")
    paths = tuple(stem.with_name(f"{stem.name}.{kind}") for kind in kinds)
    for path, kind in zip(paths, kinds, strict=True):
        write_figure(figure, path, kind)
    return paths


def write_figure(figure: Figure, path: Path, kind: Format, style: StyleName | None = None) -> None:
    """Write `figure`, whole or not at all: vectors with their glyphs, but for "png".

    Args:
        figure: what one of these functions drew.
        path: where to.
        kind: "pdf", "svg" or "png".
        style: that it was drawn in.

    Raises:
        LinprobeError: The file can't be written.
    """
    with matplotlib.rc_context(_settings(style)), atomic_write(path) as temporary:
        figure.savefig(temporary, format=kind, metadata=_METADATA[kind])


def _settings(style: StyleName | None) -> Any:
    return STYLE if style is None else STYLES[style]


def _curves(
    run: RunRecord,
    shown: Sequence[CheckpointRecord],
    scale: Scale,
    style: StyleName | None,
    *,
    controls: bool = True,
    measure: Measure = TEST_ERROR,
) -> Figure:
    """Draw a panel a checkpoint; a logarithmic scale is shared, a linear one each has its own."""
    columns = min(len(shown), _MOST_COLUMNS)
    rows = math.ceil(len(shown) / columns)
    size = _size(columns, rows, style)
    alone = len(shown) == 1 and style != "paper"  # whose column is narrow
    with matplotlib.rc_context(_settings(style)):
        figure = Figure(figsize=size, layout="constrained")
        every = list(figure.subplots(rows, columns, squeeze=False).flat)
        grid = every[: len(shown)]
        for axes, checkpoint in zip(grid, shown, strict=True):
            chart, inches = build_chart(run, checkpoint, measure), 0.85 * size[0] / columns
            draw_curve(axes, chart, scale, inches=inches, alone=alone, controls=controls)
            axes.set_title(wording.curve_title(run, checkpoint))
        for axes in every[len(shown) :]:
            axes.remove()
        if scale == "log":
            limits = [axes.get_ylim() for axes in grid]
            for axes in grid:
                axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        for axes in grid[::columns]:
            axes.set_ylabel(measure.axis)
        _finish(figure, run, grid, grows=style != "slides")
    return figure


def _size(columns: int, rows: int, style: StyleName | None) -> tuple[float, float]:
    if style == "slides":
        return SLIDE
    if style == "paper":
        return (COLUMN if columns == 1 else PAGE, ROW + (rows - 1) * 0.8 * ROW)
    return (6.4 if columns == 1 else 4.6 * columns, 0.8 + 3.6 * rows)


def _with_probes(run: RunRecord, name: str) -> CheckpointRecord:
    checkpoint = run.checkpoint(name)
    if not checkpoint.probes:
        raise LinprobeError(f"checkpoint {name!r} has no probes; expected at least one to draw")
    return checkpoint


def _finish(figure: Figure, run: RunRecord, grid: Sequence[Axes], *, grows: bool = False) -> None:
    """Finish the figure of one run."""
    note = f"{wording.samples_note(run)}, seed {run.seed}{wording.protocol(run)}"
    if run.config.extraction.float64:
        note += ", activations in float64"
    finish(figure, grid, note, quick=run.quick, grows=grows)


def finish(
    figure: Figure, grid: Sequence[Axes], note: str, *, quick: bool, grows: bool = False
) -> None:
    """Add the key, say what was drawn, and across each panel if it is not a result.

    Args:
        figure: with all its panels.
        grid: the panels that have the key's lines.
        note: what was drawn.
        quick: it is not a result.
        grows: the figure may become taller, so that a key of many rows leaves panels their size.
    """
    font = matplotlib.rcParams["font.size"]
    points = 72 * figure.get_figwidth()
    handles, labels = _key(grid)
    longest = max((len(label) for label in labels), default=1)
    columns = max(1, min(int(points / (0.9 * 0.54 * font * (longest + 5))), len(labels)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
    if grows:
        more = math.ceil(len(labels) / columns) - 1
        figure.set_figheight(figure.get_figheight() + 0.9 * 1.6 * font * more / 72)
    if quick:
        for axes in figure.axes:
            _watermark(axes)
        note = f"QUICK RUN, not a result: {note}"
    figure.suptitle(
        textwrap.fill(note, max(20, int(points / (0.62 * font)))),
        fontsize=0.9 * font,
        color=VERMILION if quick else MUTED,
        weight="bold" if quick else "normal",
    )
    # Ticks are made when they are first drawn; now they take this style, and keep it.
    figure.draw_without_rendering()


def _key(grid: Sequence[Axes]) -> tuple[list[Artist], list[str]]:
    """List each label once, whichever panel it stands in; the probes first."""
    found: dict[str, Artist] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    labels = sorted(found, key=lambda label: not label.startswith("probe, "))
    return [found[label] for label in labels], labels


def _watermark(axes: Axes) -> None:
    axes.text(
        0.5,
        0.5,
        "QUICK RUN",
        transform=axes.transAxes,
        ha="center",
        va="center",
        fontsize=3.3 * matplotlib.rcParams["font.size"],
        rotation=18,
        color=VERMILION,
        alpha=0.25,
        weight="bold",
        zorder=10,
        in_layout=False,  # it may cross the space between panels, and takes none
    )
