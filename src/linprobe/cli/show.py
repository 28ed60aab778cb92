"""The command ``linprobe show``."""

from pathlib import Path

_WIDEST = 100


def show(run: Path, /) -> None:
    """Print a run's table and curve.

    Args:
        run: folder of a run.

    Examples:
        linprobe show runs/fig8
        linprobe show runs/fig8-seeds/seed0
    """
    from linprobe.records.store import load_run
    from linprobe.report.terminal import make_console, print_sentence, print_summary
    from linprobe.report.textcurve import text_curves
    from linprobe.report.wording import steps_summary

    record = load_run(run)
    console = make_console()
    print_summary(console, record)
    braille = console.encoding.lower().startswith("utf")
    console.print()
    for line in text_curves(record, width=min(console.width, _WIDEST), braille=braille):
        console.print(line, markup=False, soft_wrap=True)
    for checkpoint in record.checkpoints:
        if checkpoint.steps:
            print_sentence(console, f"{checkpoint.name}: {steps_summary(checkpoint.steps)}")
