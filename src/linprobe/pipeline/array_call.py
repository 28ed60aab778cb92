"""The work of `fit_probes` and `fit_label_sets`: one call for any number of label sets."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import torch

from linprobe.data.copies import RARE, copies_note, feature_hashes, repeats
from linprobe.evaluation.options import EvaluationOptions
from linprobe.pipeline.array_layers import Array, ArrayLayers, any_streamed
from linprobe.pipeline.controls import OF_NETWORKS, controls_of_task, with_plan
from linprobe.pipeline.dealing import DIFFERENT, Distribute
from linprobe.pipeline.engine import Job, probe_label_sets
from linprobe.pipeline.folder import RunFolder, hashed_settings
from linprobe.pipeline.given import Given, Layers, read_given
from linprobe.pipeline.label_sets import make_tasks
from linprobe.pipeline.progress import Progress, meters, progress_shown
from linprobe.pipeline.report import ProbeReport, make_report
from linprobe.pipeline.shared_rows import SharedRows
from linprobe.pipeline.task import SetName, Task
from linprobe.probes.config import ProbeConfig
from linprobe.records.config import ExtractionRecord
from linprobe.runtime.devices import find_device, solving_device
from linprobe.runtime.distributed import Ranks, shared
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.fingerprint import Fingerprint
from linprobe.runtime.numbers import positive_number
from linprobe.runtime.progress import OnEvent

_COMPARED = 4  # layers to look at for one whose rows tell samples apart


@dataclass(frozen=True)
class ArrayCall:
    """The arguments that all label sets share; see `fit_probes`."""

    groups: object
    sample_weight: object
    num_classes: int | None
    seed: int
    device: torch.device | str
    memory_bytes: float | None
    strict: bool
    method: ProbeConfig
    evaluation: EvaluationOptions
    started: float = field(default_factory=time.perf_counter)

    def run(
        self,
        train: Layers,
        label_sets: Mapping[SetName, object],
        test: object,
        folders: Mapping[SetName, RunFolder | None],
        progress: Progress,
        distribute: Distribute,
    ) -> dict[SetName, ProbeReport]:
        """Fit a probe of each layer to each label set."""
        budget = self.memory_bytes
        if budget is not None:
            expected = "a positive number of bytes, or None"
            budget = positive_number("memory_bytes", budget, expected)
        _check_controls(self.evaluation)
        kept_in = next((folder.path for folder in folders.values() if folder is not None), None)
        with ExitStack() as stack:
            ranks = stack.enter_context(shared(distribute is not None, kept_in))
            rows = SharedRows(ranks) if distribute == "rows" and ranks.size > 1 else None
            given = read_given(
                *(train, label_sets, test, self.groups, self.sample_weight, rows),
            )
            solved_on, notes = solving_device(find_device(self.device))
            tasks = self._tasks(given, notes, budget, solved_on, shares_rows=rows is not None)
            hashes: dict[SetName, str] = {}
            if kept_in is not None or ranks.size > 1:
                hashes = _fingerprints(tasks, given.layers, solved_on, ranks, rows is not None)
            reports: dict[SetName, ProbeReport | None] = dict.fromkeys(tasks)
            for name, folder in folders.items():
                if folder is not None:
                    stack.enter_context(folder.locked(ranks))
                    reports[name] = folder.open(hashes[name], tasks[name].test_labels, ranks)
            left = {name: task for name, task in tasks.items() if reports[name] is None}
            if left:
                show = ranks.watched(stack.enter_context(progress_shown(progress, ranks)))
                found = self._fitted(given, left, folders, budget, solved_on, show, ranks, rows)
                for name, report in found.items():
                    folder = folders[name]
                    reports[name] = report if folder is None else folder.finish(report, ranks)
            return {name: report for name, report in reports.items() if report is not None}

    def _tasks(
        self,
        given: Given,
        notes: tuple[str, ...],
        budget: float | None,
        device: torch.device,
        *,
        shares_rows: bool,
    ) -> dict[SetName, Task]:
        tasks = make_tasks(
            given.label_sets,
            groups=given.groups,
            config=self.method,
            evaluation=self.evaluation,
            seed=self.seed,
            num_classes=self.num_classes,
            sample_weight=given.sample_weight,
        )
        if not shares_rows:
            notes = (*notes, *_copies(given.layers))
            # The online code sends rows in random order.
            if any_streamed(given.layers, device, budget) and not self.evaluation.mdl:
                tasks = {name: task.rising() for name, task in tasks.items()}
        strict = self.strict
        return {
            name: with_plan(replace(task, notes=(*task.notes, *notes), strict=strict))
            for name, task in tasks.items()
        }

    def _fitted(
        self,
        given: Given,
        tasks: Mapping[SetName, Task],
        folders: Mapping[SetName, RunFolder | None],
        budget: float | None,
        device: torch.device,
        show: OnEvent,
        ranks: Ranks,
        rows: SharedRows | None,
    ) -> dict[SetName, ProbeReport]:
        """Fit what is left to do, and put the reports together."""
        own = dict(tasks)
        if rows is not None:
            own = {name: rows.own_part(task, *given.counts) for name, task in tasks.items()}
        source = ArrayLayers(
            *(given.layers, next(iter(own.values())).permutation, device, budget),
            one_by_one=rows is not None,  # all processes are to take the same steps
            num_classes=max(task.targets.num_classes for task in own.values()),
        )
        shown = meters(show, source.num_features, tasks)
        jobs = {name: Job(task, shown[name], folders[name]) for name, task in own.items()}
        asked = ExtractionRecord(
            groups=self.groups is not None,
            sample_weight=self.sample_weight is not None,
            memory_bytes=budget,
        )
        reports: dict[SetName, ProbeReport] = {}
        for name, probed in probe_label_sets(source, jobs, ranks).items():
            controls, _ = controls_of_task(tasks[name])
            data = "arrays" if name is None else f"arrays ({name})"
            origin = (data, asked, str(device), self.started)
            reports[name] = make_report(tasks[name], probed, *origin, controls)
        return reports


def _fingerprints(
    tasks: Mapping[SetName, Task],
    layers: Mapping[str, object],
    device: torch.device,
    ranks: Ranks,
    shares_rows: bool,
) -> dict[SetName, str]:
    """Hash the call for each label set, once all processes are known to make it."""
    data = Fingerprint()
    data.add(layers)
    hashes: dict[SetName, str] = {}
    for name, task in tasks.items():
        hashed = Fingerprint()
        hashed.add(*hashed_settings(task), None if shares_rows else data.text, str(device))
        ranks.same(hashed.text, DIFFERENT)
        if shares_rows:
            hashed.add(ranks.gathered(data.text))
        hashes[name] = hashed.text
    return hashes


def _copies(opened: Mapping[str, tuple[Array, Array]]) -> Iterator[str]:
    """Say whether test rows are training rows, by a layer whose rows tell samples apart."""
    found: list[tuple[float, str, np.ndarray]] = []
    for name, (train, _) in islice(opened.items(), _COMPARED):
        hashes = feature_hashes(train)
        found.append((repeats(hashes), name, hashes))
        if found[-1][0] <= RARE:
            break
    _, name, hashes = min(found, key=lambda layer: layer[0])
    yield from copies_note(hashes, feature_hashes(opened[name][1]), f"features of layer {name!r}")


def _check_controls(evaluation: EvaluationOptions) -> None:
    for name in evaluation.controls:
        if name in OF_NETWORKS:
            raise LinprobeError(
                f"control {name!r} starts from a network, and only its features are given here; "
                "expected other controls, or linprobe.probe"
            )
