"""The command ``linprobe plot``."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args

from linprobe.cli.flags import flag
from linprobe.cli.options import METRIC
from linprobe.runtime.errors import LinprobeError

# Those of `linprobe.report`, which takes matplotlib to import.
Format: TypeAlias = Literal["pdf", "svg", "png"]
Style: TypeAlias = Literal["paper", "slides"]


def plot(
    run: Path,
    /,
    *,
    format: Format | None = None,
    style: Style = "paper",
    checkpoint: Annotated[str | None, flag(str, "NAME")] = None,
    metric: Annotated[str | None, METRIC] = None,
    out: Annotated[Path | None, flag(Path, "FILE")] = None,
) -> None:
    """Draw a run for a paper or for slides.

    Draws bars for Figure 8, else the test error along the depth with intervals and controls, a
    panel a checkpoint, from RUN/results.json alone.

    Args:
        run: folder of a run.
        format: of the file; None: that of --out, else pdf.
        style: size of figure and text.
        checkpoint: draw the curve of this one; None: all.
        metric: draw curves of this one, such as auroc; None: the test error.
        out: file to write; None: RUN/plot-STYLE.FORMAT.

    Examples:
        linprobe plot runs/fig8 --style slides --format svg
        linprobe plot runs/probe --out figure.pdf
    """
    kind = _format(format, out)
    from linprobe.records.store import load_run
    from linprobe.report.plots import draw_run, write_figure

    record = load_run(run)
    folder = run if run.is_dir() else run.parent
    path = out or folder / f"plot-{style}.{kind}"
    write_figure(draw_run(record, checkpoint, style, metric), path, kind, style)
    print(f"Written to {path}")


def _format(asked: Format | None, out: Path | None) -> Format:
    """Return the format that was asked for, in words or by the file's name."""
    formats: tuple[Format, ...] = get_args(Format)
    ending = out.suffix.removeprefix(".").lower() if out else ""
    known = [kind for kind in formats if kind == ending]
    if ending and not known:
        raise LinprobeError(f"--out {out} ends in .{ending}; expected {', '.join(formats)}")
    if asked and known and asked != known[0]:
        raise LinprobeError(
            f"--out {out} ends in .{ending}, but --format is {asked}; give one of them, or the "
            "same twice"
        )
    return asked or (known[0] if known else "pdf")
