"""The command ``linprobe plot``."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from linprobe.runtime.errors import LinprobeError

if TYPE_CHECKING:
    from linprobe.cli.options import Commands
    from linprobe.report.plots import Format

# As in `linprobe.report`, which takes matplotlib to import.
_FORMATS: tuple["Format", ...] = ("pdf", "svg", "png")
_STYLES = ("paper", "slides")


def add_parser(commands: "Commands") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "plot",
        help="draw a run for a paper or for slides",
        description="Draw a run from its results.json: bars for Figure 8, else test error along "
        "the depth with intervals and controls, a panel a checkpoint.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="folder of a run")
    add("--format", choices=_FORMATS, help="default: that of --out, else pdf")
    add(
        "--style",
        choices=_STYLES,
        default="paper",
        help="size of figure and text (default: %(default)s)",
    )
    add("--checkpoint", metavar="NAME", help="draw the curve of this one (default: all)")
    add("--out", type=Path, metavar="FILE", help="default: RUN/plot-STYLE.FORMAT")
    parser.set_defaults(command=_plot)


def _plot(options: argparse.Namespace) -> None:
    kind = _format(options.format, options.out)
    from linprobe.records.store import load_run
    from linprobe.report.plots import draw_run, write_figure

    run = load_run(options.run)
    folder = options.run if options.run.is_dir() else options.run.parent
    out = options.out or folder / f"plot-{options.style}.{kind}"
    write_figure(draw_run(run, options.checkpoint, options.style), out, kind, options.style)
    print(f"Written to {out}")


def _format(asked: "Format | None", out: Path | None) -> "Format":
    """The format that was asked for, in words or by the file's name."""
    ending = out.suffix.removeprefix(".").lower() if out else ""
    known = [kind for kind in _FORMATS if kind == ending]
    if ending and not known:
        raise LinprobeError(f"--out {out} ends in .{ending}; expected {', '.join(_FORMATS)}")
    if asked and known and asked != known[0]:
        raise LinprobeError(
            f"--out {out} ends in .{ending}, but --format is {asked}; give one of them, or the "
            "same twice"
        )
    return asked or (known[0] if known else "pdf")
