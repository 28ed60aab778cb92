"""The folder that a call writes its run to: each layer when it is done, the rest at the end."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from torch import Tensor

from linprobe.evaluation.plan import EvaluationPlan
from linprobe.pipeline.layer_probe import Probe
from linprobe.pipeline.report import ProbeReport, load_report
from linprobe.pipeline.task import Task
from linprobe.pipeline.unfinished import Parts, Unfinished, is_finished, only_finished
from linprobe.records.store import check_writable
from linprobe.runtime.distributed import ALONE, Ranks
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.lock import folder_lock

IN_PYTHON = "; then call report.save(FOLDER, overwrite=True)"
"""End of `ProbeReport.unwritten`, which is for those who have the report."""


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
        self.path, self.describe, self._metric = Path(folder), describe, metric
        self._overwrite = overwrite
        self._unfinished = Unfinished(self.path, overwrite=overwrite)
        self._fingerprint = ""
        self._parts: Parts | None = None
        check_writable(self.path)

    def below(self, name: str) -> "RunFolder":
        """Make a folder of this name in it, for one run of several, with the same options."""
        return RunFolder(
            self.path / name,
            overwrite=self._overwrite,
            describe=self.describe,
            metric=self._metric,
        )

    def locked(self, ranks: Ranks = ALONE) -> AbstractContextManager[None]:
        """Keep other calls from writing to the folder; see `folder_lock`."""
        return folder_lock(self.path) if ranks.leads else nullcontext()

    def open(
        self, fingerprint: str, test_labels: Tensor, ranks: Ranks = ALONE
    ) -> ProbeReport | None:
        """Take up what an earlier call left.

        Args:
            fingerprint: of data, network and settings.
            test_labels: (n_test,) int64.
            ranks: processes of this call, of which the first one reads what is there.

        Returns:
            The report, if nothing is left to do.

        Raises:
            LinprobeError: The folder holds another run, and is not to be overwritten.
        """
        self._fingerprint = fingerprint
        self._parts = Parts(self._unfinished.folder, fingerprint, test_labels)
        return ranks.agreed(self._complete() if ranks.leads else None)

    def _complete(self) -> ProbeReport | None:
        run = self._unfinished.open(self._fingerprint)
        if run is not None and not self._unfinished.folder.exists():
            with suppress(LinprobeError):
                report = load_report(self.path)
                if all(map(is_finished, report.records)):
                    return report
        return None

    def finished(self, num_features: Mapping[str, int]) -> dict[str, Probe]:
        """Find the layers that earlier calls finished, of so many features."""
        assert self._parts is not None
        self._unfinished.begin()
        found: dict[str, Probe] = {}
        if self._unfinished.run is not None:
            with suppress(LinprobeError):
                found |= load_report(self.path)
        return only_finished(found, num_features) | self._parts.finished(num_features)

    def put(self, probe: Probe) -> None:
        """Write a finished layer; where that fails, it is kept in memory alone."""
        assert self._parts is not None
        self._parts.put(probe)

    def finish(self, report: ProbeReport, ranks: Ranks = ALONE) -> ProbeReport:
        """Write the whole run; where that fails, warn, and let the report say so.

        The first process writes; the others have its report then.
        """
        return ranks.agreed(self._finish(report) if ranks.leads else report)

    def _finish(self, report: ProbeReport) -> ProbeReport:
        config = replace(report.run.config, fingerprint=self._fingerprint)
        report.run = replace(report.run, config=config)
        if self.describe is not None:
            self.describe(report)
        try:
            self._unfinished.clear()
            report.write(self.path, self._metric)
        except LinprobeError as error:
            report.unwritten = f"{error}{IN_PYTHON}"
            warnings.warn(str(error), stacklevel=5)
            return report
        self._unfinished.remove()
        return report


def hashed_settings(task: Task) -> tuple[object, ...]:
    """Give what of a task its probes depend on."""
    return version("linprobe"), replace(task, notes=(), plan=EvaluationPlan(), strict=False)


def run_folder(out: str | Path | RunFolder | None) -> RunFolder | None:
    """Make a `RunFolder` of what `out` may be."""
    return out if out is None or isinstance(out, RunFolder) else RunFolder(out)
