"""The folder that a call writes its run to: each layer when it is done, the rest at the end.

Until the run is complete, ``FOLDER/unfinished`` holds a part for each finished layer: its weights
and predictions as `save_probes` writes them, and its record, which is written last. Each file
appears whole or not at all. A later call with the same fingerprint takes the parts up.
"""

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from torch import Tensor

from linprobe.core.solvers.base import Status
from linprobe.evaluation.plan import EvaluationPlan
from linprobe.pipeline.layer_probe import Probe, load_probe, save_probes
from linprobe.pipeline.report import ProbeReport, load_report
from linprobe.pipeline.task import Task
from linprobe.records.codec import from_text, to_text
from linprobe.records.evidence import ControlRecord
from linprobe.records.schema import ProbeRecord
from linprobe.records.store import (
    JSON_NAME,
    UNFINISHED,
    check_writable,
    load_run,
    prepare_folder,
)
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.files import atomic_write


@dataclass(frozen=True)
class _Part:
    """What is known of a finished layer beside its tensors."""

    fingerprint: str
    record: ProbeRecord
    controls: tuple[ControlRecord, ...]


class RunFolder:
    """A folder that a run is written to while it is made.

    Args:
        folder: made if it is missing.
        overwrite: replace the run of other data, another network or other settings.
        describe: is called with the report before it is written.
        metric: name of the metric that the page shows first; None: the test error.

    Raises:
        LinprobeError: The folder can't be written.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        overwrite: bool = False,
        describe: Callable[[ProbeReport], None] | None = None,
        metric: str | None = None,
    ) -> None:
        self.path, self.describe, self._overwrite = Path(folder), describe, overwrite
        self._parts, self._metric = self.path / UNFINISHED, metric
        self._fingerprint = ""
        self._labels: Tensor | None = None
        check_writable(self.path)

    def open(self, fingerprint: str, test_labels: Tensor) -> ProbeReport | None:
        """Take up what an earlier call left.

        Args:
            fingerprint: of data, network and settings.
            test_labels: (n_test,) int64.

        Returns:
            The report, if nothing is left to do.

        Raises:
            LinprobeError: The folder holds another run, and is not to be overwritten.
        """
        self._fingerprint, self._labels = fingerprint, test_labels
        if self._overwrite:
            return None
        if set(self._fingerprints()) - {fingerprint}:
            raise LinprobeError(
                f"{self.path} already holds a run of other data, another network or other "
                "settings; choose another folder, or replace that run with overwrite=True"
            )
        if (self.path / JSON_NAME).exists() and not self._parts.exists():
            with suppress(LinprobeError):
                report = load_report(self.path)
                if all(map(_is_finished, report.records)):
                    return report
        return None

    def finished(self, num_features: Mapping[str, int]) -> dict[str, Probe]:
        """Find the layers that earlier calls finished, of so many features.

        What is to be overwritten is deleted here, where the work begins.
        """
        if self._overwrite:
            prepare_folder(self.path, overwrite=True)
        found: dict[str, Probe] = {}
        if (self.path / JSON_NAME).exists():
            with suppress(LinprobeError):
                found |= load_report(self.path)
        for path in self._parts.glob("*.json"):
            with suppress(LinprobeError):  # a damaged part is made again
                part = from_text(_Part, path.read_bytes())
                found[part.record.layer] = load_probe(
                    self._parts, path.stem, part.record, part.controls
                )
        return {
            layer: found[layer]
            for layer, width in num_features.items()
            if layer in found
            and _is_finished(found[layer].record)
            and found[layer].record.num_features == width
        }

    def put(self, probe: Probe) -> None:
        """Write a finished layer; where that fails, it is kept in memory alone."""
        record, name = probe.record, f"{probe.record.index:05d}"
        if not _is_finished(record):
            return
        part = _Part(self._fingerprint, record, probe.controls)
        with suppress(LinprobeError):  # said once, when the whole run can't be written either
            save_probes(self._parts, name, {record.layer: probe}, self._labels)
            with atomic_write(self._parts / f"{name}.json") as temporary:
                temporary.write_bytes(to_text(part))

    def finish(self, report: ProbeReport) -> ProbeReport:
        """Write the whole run; where that fails, warn, and let the report say so."""
        config = replace(report.run.config, fingerprint=self._fingerprint)
        report.run = replace(report.run, config=config)
        if self.describe is not None:
            self.describe(report)
        try:
            report.write(self.path, self._metric)
        except LinprobeError as error:
            report.unwritten = f"{error}; then call report.save(FOLDER, overwrite=True)"
            warnings.warn(str(error), stacklevel=4)
            return report
        shutil.rmtree(self._parts, ignore_errors=True)
        return report

    def _fingerprints(self) -> Iterator[str | None]:
        """Fingerprints of what is there; None: a run without one, or a damaged one."""
        if (self.path / JSON_NAME).exists():
            try:
                yield load_run(self.path).config.fingerprint
            except LinprobeError:
                yield None
        for path in self._parts.glob("*.json"):
            with suppress(LinprobeError):
                yield from_text(_Part, path.read_bytes()).fingerprint


def _is_finished(record: ProbeRecord) -> bool:
    """Tell whether a later call could add nothing: what an error took away is tried again."""
    return record.status != Status.FAILED and record.missing is None


def hashed_settings(task: Task) -> tuple[object, ...]:
    """Give what of a task its probes depend on."""
    return version("linprobe"), replace(task, notes=(), plan=EvaluationPlan(), strict=False)


def run_folder(out: str | Path | RunFolder | None) -> RunFolder | None:
    """Make a `RunFolder` of what `out` may be."""
    return out if out is None or isinstance(out, RunFolder) else RunFolder(out)
