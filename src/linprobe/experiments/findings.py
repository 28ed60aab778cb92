"""Say what runs show, in a line each: ``python -m linprobe.experiments.findings RUN RUN ...``.

``make reproduce`` ends with it. Every number is the run's own, and what the paper says is compared
with it; a line says so where a run shows something else.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from linprobe.experiments.registry import EXPERIMENTS
from linprobe.records.schema import RunRecord
from linprobe.records.store import load_run
from linprobe.runtime.errors import LinprobeError


def finding(run: RunRecord) -> str:
    """Say in a line what a run shows, how far that is what the paper says, and how sure it is.

    Raises:
        LinprobeError: The run is none of an experiment.
    """
    if run.experiment not in EXPERIMENTS:
        raise LinprobeError(
            f"a run of {run.experiment!r} has no published figure; expected one of: "
            f"{', '.join(EXPERIMENTS)}"
        )
    found = EXPERIMENTS[run.experiment].finding(run)
    return f"{run.experiment}: {'; '.join((found, *_doubts(run)))}."


def _doubts(run: RunRecord) -> Iterator[str]:
    probes = [probe for checkpoint in run.checkpoints for probe in checkpoint.probes]
    failed = sum(probe.standing == "failed" for probe in probes)
    if failed:
        yield f"{failed} of {len(probes)} probes are NOT converged"
    if run.protocol == "sgd":
        yield "probes trained by SGD, which are no optima"
    if not run.complete:
        yield "UNFINISHED RUN"
    if run.quick:
        yield "QUICK RUN, no result"


def print_findings(folders: Sequence[Path]) -> None:
    """Print a line for each run, and one that names their reports."""
    for folder in folders:
        print(finding(load_run(folder)))
    print("Reports: " + ", ".join(str(folder / "report.html") for folder in folders))


if __name__ == "__main__":
    try:
        print_findings([Path(word) for word in sys.argv[1:]])
    except LinprobeError as error:
        sys.exit(f"linprobe: {error}")
