"""What `probe` and `fit_probes` have in common: progress, and the report at the end."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from linprobe.evaluation.statistics import depth_steps
from linprobe.pipeline.fitting import Task, layer_notes
from linprobe.pipeline.report import CHECKPOINT, Probe, ProbeReport
from linprobe.records.environment import environment, peak_rss_bytes
from linprobe.records.evidence import ControlRecord
from linprobe.records.schema import (
    PROBE,
    CheckpointRecord,
    DatasetRecord,
    RunConfig,
    RunRecord,
)
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.progress import Event, OnEvent, Tracker

Progress = bool | OnEvent


class Meter:
    """Turns what goes on into events."""

    def __init__(self, show: OnEvent, task: Task, widths: Mapping[str, int]) -> None:
        each = 4e-4 + 2e-3 * len(task.order) / 60_000  # seconds a feature, roughly
        self._costs = {name: 0.1 + each * width for name, width in widths.items()}
        self._tracker = Tracker(show, sum(self._costs.values()))
        self._path = task.config.l2_path
        self._labels = {name: f"{name} ({i}/{len(widths)})" for i, name in enumerate(widths, 1)}

    def reading(self, split: str, group: Sequence[str]) -> Callable[[int, int], None]:
        """Receiver of a reader's progress."""
        span = group[0] if len(group) == 1 else f"{group[0]} to {group[-1]}"

        def on_rows(done: int, total: int) -> None:
            text = f"{split} features of {span}: {done:,} of {total:,}"
            self._tracker.report(CHECKPOINT, "extract", text)

        return on_rows

    def solving(self, layer: str) -> Callable[[str, float, float, float], None]:
        """Receiver of a solver's progress."""
        solves = 0

        def on_solve(stage: str, l2: float, passes: float, gap: float) -> None:
            nonlocal solves
            solves += 1
            share = min(1.0, solves / (len(self._path) + 1))
            text = (
                f"{self._labels[layer]}, {stage}: l2 {l2:.0e}, {passes:.0f} passes, gap {gap:.1e}"
            )
            self._tracker.report(CHECKPOINT, "solve", text, begun=share * self._costs[layer])

        return on_solve

    def finished(self, probe: Probe) -> None:
        """A layer is done."""
        record = probe.record
        self._tracker.spend(self._costs[record.layer])
        text = (
            f"{self._labels[record.layer]}: test error {record.test_error_rate:.4f}, "
            f"l2 {record.l2:.0e}, gap {record.duality_gap:.1e}, {record.seconds:.1f} s"
        )
        unsolved = "" if record.converged else f", NOT converged ({record.status})"
        self._tracker.report(CHECKPOINT, "solve", text + unsolved, milestone=True)


@contextmanager
def shown(progress: Progress) -> Iterator[OnEvent]:
    """Gives the receiver of events, which shows them until the block ends where that is asked."""
    if progress is True:
        from linprobe.report.terminal import make_console, show_progress

        with show_progress(make_console(stderr=True)) as show:
            yield show
    elif progress and not callable(progress):
        raise LinprobeError(f"progress is {progress!r}; expected True, False or a function")
    else:
        yield progress or _silent


def _silent(event: Event) -> None:
    """Default: say nothing."""


def thread_count(device: torch.device) -> int:
    """How many narrow layers are fitted at a time; a GPU's are not held up by threads."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def make_report(
    task: Task,
    probes: dict[str, Probe],
    stages: dict[str, float],
    config: RunConfig,
    data_name: str,
    started: float,
    controls: tuple[ControlRecord, ...] = (),
) -> ProbeReport:
    """Put the probes of all layers together.

    Args:
        task: what they have in common.
        probes: by layer, in order.
        stages: seconds of each.
        config: the call's options, without notes.
        data_name: what the data was, in a word.
        started: `time.perf_counter` at the start.
        controls: those that were not fitted with their layer.
    """
    notes = (*task.notes, *layer_notes(task, probes.values()))
    predicted = {
        name: p.predictions.predicted for name, p in probes.items() if p.predictions is not None
    }
    checkpoint = CheckpointRecord(
        name=CHECKPOINT,
        step=0,
        network_test_error_rate=float("nan"),
        stages=stages,
        probes=tuple(probe.record for probe in probes.values()),
        steps=depth_steps(predicted, task.test_labels),
        controls=(*(c for probe in probes.values() for c in probe.controls), *controls),
    )
    run = RunRecord(
        experiment=PROBE,
        protocol="certified",
        seed=task.config.seed,
        quick=False,
        config=replace(config, notes=notes),
        dataset=DatasetRecord(
            name=data_name,
            num_train=len(task.train_labels),
            num_test=len(task.test_labels),
            majority_error_rate=task.majority_error_rate,
        ),
        environment=environment(torch.get_num_threads(), config.device),
        seconds=time.perf_counter() - started,
        peak_rss_bytes=peak_rss_bytes(),
        complete=True,
        checkpoints=(checkpoint,),
    )
    return ProbeReport(run, probes, task.test_labels)
