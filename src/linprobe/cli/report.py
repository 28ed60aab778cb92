"""The command ``linprobe report``."""

from pathlib import Path


def report(run: Path, /) -> None:
    """Write a run as one interactive page.

    Writes RUN/report.html: one file that opens in any browser, offline, made from RUN/results.json
    alone.

    Args:
        run: folder of a run.

    Examples:
        linprobe report runs/fig8
        linprobe report runs/probe
    """
    from linprobe.records.store import load_run
    from linprobe.report.page import write_report

    folder = run if run.is_dir() else run.parent
    print(f"Written to {write_report(load_run(run), folder)}")
