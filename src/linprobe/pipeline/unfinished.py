"""Keep what is done of a run on disk while the run is made: ``FOLDER/unfinished``.

There is a part for each finished layer: its weights and predictions as `save_probes` writes them,
and its record, which is written last. Each file appears whole or not at all. ``run.json`` says
which run it is, by a fingerprint of data, network and settings.
"""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from linprobe.core.solvers.base import Status
from linprobe.pipeline.layer_probe import Probe, load_probe, save_probes
from linprobe.records.codec import from_text, to_text
from linprobe.records.evidence import ControlRecord
from linprobe.records.schema import ProbeRecord, RunRecord
from linprobe.records.store import JSON_NAME, UNFINISHED, clear_folder, load_run
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.files import atomic_write

_BEGUN = "run.json"


@dataclass(frozen=True)
class _Begun:
    """The run that is made; `replaces`: the files of a run in the folder are not its own."""

    fingerprint: str
    replaces: bool


@dataclass(frozen=True)
class _Part:
    """A finished layer without its tensors."""

    fingerprint: str
    record: ProbeRecord
    controls: tuple[ControlRecord, ...]


class Parts:
    """A folder of finished layers of one state of a network; a `Shelf` of the engine.

    Args:
        folder: made with the first part.
        fingerprint: of all that the probes depend on; parts with another one are not used.
        test_labels: (n_test,) int64.
    """

    def __init__(self, folder: Path, fingerprint: str, test_labels: Tensor) -> None:
        self._folder, self._fingerprint, self._labels = folder, fingerprint, test_labels

    def finished(self, num_features: Mapping[str, int]) -> dict[str, Probe]:
        """Find the layers that earlier calls finished, of so many features."""
        found: dict[str, Probe] = {}
        for path in self._folder.glob("[0-9]*.json"):
            with suppress(LinprobeError):  # a damaged part is made again
                part = from_text(_Part, path.read_bytes())
                if part.fingerprint == self._fingerprint:
                    found[part.record.layer] = load_probe(
                        self._folder, path.stem, part.record, part.controls
                    )
        return only_finished(found, num_features)

    def put(self, probe: Probe) -> None:
        """Write a finished layer; where that fails, it is kept in memory alone."""
        record, name = probe.record, f"{probe.record.index:05d}"
        if not is_finished(record):
            return
        part = _Part(self._fingerprint, record, probe.controls)
        with suppress(LinprobeError):  # said once, when the whole run can't be written either
            save_probes(self._folder, name, {record.layer: probe}, self._labels)
            with atomic_write(self._folder / f"{name}.json") as temporary:
                temporary.write_bytes(to_text(part))


class Unfinished:
    """A folder's run that is under way, and what may become of one that is there already.

    Args:
        run_folder: folder of the run.
        overwrite: make the run anew, in place of what is there.

    Attributes:
        folder: of what is done, below the run's.
        run: what the run's folder holds of this very run; None: nothing.
    """

    def __init__(self, run_folder: Path, *, overwrite: bool = False) -> None:
        self.folder = run_folder / UNFINISHED
        self.run: RunRecord | None = None
        self._run_folder, self._overwrite = run_folder, overwrite
        self._begun = _Begun("", replaces=overwrite)

    def open(self, fingerprint: str) -> RunRecord | None:
        """Take up what an earlier call left, and return `run`.

        Args:
            fingerprint: of data, network and settings.

        Raises:
            LinprobeError: The folder holds another run, and is not to be overwritten.
        """
        self._begun = _Begun(fingerprint, replaces=self._overwrite)
        if self._overwrite:
            return None
        with suppress(OSError, LinprobeError):
            self._begun = from_text(_Begun, (self.folder / _BEGUN).read_bytes())
        known, run = self._begun.fingerprint, None
        if not self._begun.replaces and (self._run_folder / JSON_NAME).exists():
            known = ""
            with suppress(LinprobeError):  # a damaged one is none of ours either
                run = load_run(self._run_folder)
                known = run.config.fingerprint or ""
        if known != fingerprint:
            raise LinprobeError(
                f"{self._run_folder} already holds a run of other data, another network or other "
                "settings; choose another folder, or replace that run with overwrite=True"
            )
        self.run = run
        return run

    def begin(self) -> None:
        """Say which run is made from now on; parts of one that is to be replaced are deleted."""
        if self._overwrite:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._write()

    def clear(self) -> None:
        """Delete the run that is replaced, now that there is something to put in its place."""
        if self._begun.replaces:
            clear_folder(self._run_folder)

    def written(self) -> None:
        """Say that what the run's folder holds is of this run from now on."""
        if self._begun.replaces:
            self._begun = _Begun(self._begun.fingerprint, replaces=False)
            self._write()

    def remove(self) -> None:
        """Delete the parts of a run that is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self) -> None:
        with suppress(LinprobeError), atomic_write(self.folder / _BEGUN) as temporary:
            temporary.write_bytes(to_text(self._begun))


def is_finished(record: ProbeRecord) -> bool:
    """Tell whether a later call could add nothing: what an error took away is tried again."""
    return record.status != Status.FAILED and record.missing is None


def only_finished(probes: Mapping[str, Probe], num_features: Mapping[str, int]) -> dict[str, Probe]:
    """Leave out what is not finished or has another number of features."""
    return {
        layer: probes[layer]
        for layer, width in num_features.items()
        if layer in probes
        and is_finished(probes[layer].record)
        and probes[layer].record.num_features == width
    }
