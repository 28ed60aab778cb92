"""The command ``linprobe show``."""

from pathlib import Path
from typing import Annotated

from linprobe.cli.options import METRIC

_WIDEST = 100


def show(run: Path, /, *, metric: Annotated[str | None, METRIC] = None) -> None:
    """Print a run's table and curve.

    Args:
        run: folder of a run.
        metric: what to show, such as auroc or average_precision; None: the test error, and more
            where classes are imbalanced.

    Examples:
        linprobe show runs/fig8
        linprobe show runs/probe --metric auroc
    """
    from linprobe.records.store import load_run
    from linprobe.report.measures import chosen
    from linprobe.report.terminal import make_console, print_sentence, print_summary
    from linprobe.report.textcurve import text_curves
    from linprobe.report.wording import steps_summary

    record = load_run(run)
    console = make_console()
    print_summary(console, record, metric=metric)
    braille = console.encoding.lower().startswith("utf")
    console.print()
    width, measure = min(console.width, _WIDEST), chosen(record, metric)
    for line in text_curves(record, width=width, braille=braille, metric=metric):
        console.print(line, markup=False, soft_wrap=True)
    for checkpoint in record.checkpoints:
        if steps := measure.steps(checkpoint):
            print_sentence(console, f"{checkpoint.name}: {steps_summary(steps, measure.label)}")
