"""The command ``linprobe report``."""

from pathlib import Path
from typing import Annotated

from linprobe.cli.options import METRIC


def report(run: Path, /, *, metric: Annotated[str | None, METRIC] = None) -> None:
    """Write a run as one interactive page.

    Writes RUN/report.html: one file that opens in any browser, offline, made from RUN/results.json
    alone.

    Args:
        run: folder of a run.
        metric: what to show first, such as auroc; None: the test error.

    Examples:
        linprobe report runs/fig8
        linprobe report runs/probe
    """
    from linprobe.records.store import load_run
    from linprobe.report.page import write_report

    folder = run if run.is_dir() else run.parent
    print(f"Written to {write_report(load_run(run), folder, metric)}")
