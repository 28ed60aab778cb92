"""The command ``linprobe compare``."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from cyclopts import Parameter

from linprobe.cli.flags import flag
from linprobe.cli.options import OUT
from linprobe.runtime.errors import LinprobeError

if TYPE_CHECKING:
    from rich.table import Table

    from linprobe.records.comparison.distances import Comparison
    from linprobe.records.schema import RunRecord

# Those of `linprobe.report` and `linprobe.records.published`, which take long to import.
Format: TypeAlias = Literal["pdf", "svg", "png"]
Reading: TypeAlias = Literal["layer", "input"]
_NAME = "compare"


def compare(
    *runs: Annotated[Path, Parameter(name="RUN", required=True)],
    published: bool = False,
    reading: Reading = "layer",
    split: Literal["test", "train"] | None = None,
    checkpoint: Annotated[str | None, flag(str, "NAME")] = None,
    out: Annotated[Path, OUT] = Path("runs", "compare"),
    format: Format | None = None,
) -> None:
    """Draw several runs of an experiment together, or beside the published numbers.

    Draws the error curves of several runs of one experiment together, a panel a checkpoint, with
    their differences from the first run below; prints how far they are apart, and writes
    DIR/compare.csv.

    Args:
        runs: folder of a run, or of the seeds of `linprobe reproduce --seeds`, drawn as their mean
            with the range of the seeds.
        published: compare with the numbers of the paper too (Figure 5: the two in its text; Figure
            8, 128 layers: bars read off the image).
        reading: which bars of the published Figure 8 are drawn: bar i as layer i+1, or bar 0 as the
            input and bar i as layer i; the table has both.
        split: whose error; None: test, or with --published, that of the published numbers.
        checkpoint: compare at this one; None: all that are shared.
        out: folder to write to.
        format: of the figure; None: png and svg.

    Examples:
        linprobe compare runs/fig8 --published
        linprobe compare runs/fig8 runs/fig8-sgd --split train
    """
    from linprobe.records.store import check_folder
    from linprobe.report.overlay import draw_comparison
    from linprobe.report.plots import save_figure, write_figure
    from linprobe.report.terminal import make_console
    from linprobe.runtime.files import write_csv

    comparison = _compared(runs, published, reading, split, checkpoint)
    figure = draw_comparison(comparison)
    check_folder(out, overwrite=True)
    stem = out / _NAME
    if format is None:
        written = list(save_figure(figure, stem))
    else:
        written = [stem.with_suffix(f".{format}")]
        write_figure(figure, written[0], format)
    rows = list(comparison.rows())
    written.append(stem.with_suffix(".csv"))
    write_csv(written[-1], list(rows[0]), [list(row.values()) for row in rows])
    console = make_console()
    console.print(_table(comparison))
    for line in _sentences(comparison):
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"Written to {', '.join(map(str, written))}", markup=False, soft_wrap=True)


def _compared(
    paths: Sequence[Path],
    published: bool,
    reading: Reading,
    split: Literal["test", "train"] | None,
    checkpoint: str | None,
) -> "Comparison":
    from linprobe.records.comparison.curves import Curve
    from linprobe.records.comparison.distances import compare as compare_curves
    from linprobe.records.comparison.labels import labels
    from linprobe.records.published import load_published

    if len(paths) < 2 and not published:
        raise LinprobeError("one RUN given; expected two or more, or --published")
    places = [path.resolve() for path in paths]
    twice = next((path for path in paths if places.count(path.resolve()) > 1), None)
    if twice is not None:
        raise LinprobeError(f"{twice} is given twice; expected different runs")
    named = [(path, _load(path)) for path in paths]
    numbers = load_published(named[0][1][0].experiment) if published else None
    whose = split or (numbers.split if numbers is not None else "test")
    curves = [
        Curve(label, runs, whose) for label, (_, runs) in zip(labels(named), named, strict=True)
    ]
    return compare_curves(curves, published=numbers, reading=reading, checkpoint=checkpoint)


def _load(path: Path) -> "tuple[RunRecord, ...]":
    from linprobe.records.seeds import load_seeds
    from linprobe.records.store import JSON_NAME, load_run, seed_folders

    folders = seed_folders(path)
    if not folders or (path / JSON_NAME).exists():
        return (load_run(path),)
    runs = load_seeds(path)
    if len(runs) < len(folders):
        print(
            f"{path}: seeds left out because their runs are unfinished: {len(folders) - len(runs)}"
        )
    return runs


def _table(comparison: "Comparison") -> "Table":
    from rich.markup import escape

    from linprobe.records.comparison.distances import LOWER, UPPER
    from linprobe.report.terminal import plain_table
    from linprobe.runtime.terminals import printable

    table = plain_table(f"{comparison.split} error: mean absolute difference", "checkpoint")
    table.add_column("curve", overflow="fold")
    table.add_column("minus", overflow="fold")
    distances = [found for panel in comparison.panels for found in comparison.distances(panel)]
    parts = (LOWER, UPPER) if any(found.parts for found in distances) else ()
    for name in ("layers", "mean", *parts, "largest"):
        table.add_column(name, justify="right")
    table.add_column("at", overflow="fold")
    for found in distances:
        means = [found.mean_absolute(), *(found.mean_absolute(part) for part in parts)]
        layer, value = found.largest or ("", None)
        table.add_row(
            *map(escape, (found.checkpoint, found.curve, found.other)),
            str(len(found.differences)),
            *(f"{mean:.4f}" for mean in means),
            "" if value is None else f"{value:+.4f}",
            escape(printable(layer)),
        )
    return table


def _sentences(comparison: "Comparison") -> Iterator[str]:
    yield from comparison.left_out
    for curve in comparison.curves:
        if curve.long_label != curve.label:
            yield f"{curve.long_label}."
    if any(run.quick for run in comparison.runs):
        yield "QUICK RUN among them: not a result."
    if any(not run.complete for run in comparison.runs):
        yield "UNFINISHED RUN among them: checkpoints are missing."
    published = comparison.published
    if published is not None:
        yield (
            f"Published: {published.quantity}. {published.source}; precision "
            f"{published.precision:.3f}: smaller differences mean nothing."
        )
        if len(published.readings) > 1:
            yield "What a bar stands for is not published: both readings are in the table."
        if published.split != comparison.split:
            yield (
                f"The published numbers are {published.split} errors, and {comparison.split} "
                "errors are compared with them."
            )
