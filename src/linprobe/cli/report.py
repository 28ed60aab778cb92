"""The command ``linprobe report``."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from linprobe.cli.options import Commands


def add_parser(commands: "Commands") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "report",
        help="write a run as one interactive page",
        description="Write RUN/report.html: one file that opens in any browser, offline, made "
        "from RUN/results.json alone.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.set_defaults(command=_report)


def _report(options: argparse.Namespace) -> None:
    from linprobe.records.store import load_run
    from linprobe.report.page import write_report

    run = load_run(options.run)
    folder = options.run if options.run.is_dir() else options.run.parent
    print(f"Written to {write_report(run, folder)}")
