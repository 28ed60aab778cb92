"""The command ``linprobe show``."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from linprobe.cli.options import Commands

_WIDEST = 100


def add_parser(commands: "Commands") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "show",
        help="print a run's table and curve",
        description="Print what a run found: a table, and a small curve for each checkpoint.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.set_defaults(command=_show)


def _show(options: argparse.Namespace) -> None:
    from linprobe.records.store import load_run
    from linprobe.report.terminal import make_console, print_sentence, print_summary
    from linprobe.report.textcurve import text_curves
    from linprobe.report.wording import steps_summary

    run = load_run(options.run)
    console = make_console()
    print_summary(console, run)
    braille = console.encoding.lower().startswith("utf")
    console.print()
    for line in text_curves(run, width=min(console.width, _WIDEST), braille=braille):
        console.print(line, markup=False, soft_wrap=True)
    for checkpoint in run.checkpoints:
        if checkpoint.steps:
            print_sentence(console, f"{checkpoint.name}: {steps_summary(checkpoint.steps)}")
