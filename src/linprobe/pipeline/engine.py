"""The one engine: extract, fit and certify, evaluate and record, layer by layer.

`linprobe.probe`, `linprobe.fit_probes` and all experiments run this one loop; they differ in their
`LayerSource`, which gives the features.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from linprobe.core.features import DamagedRows
from linprobe.core.solvers.base import Status
from linprobe.pipeline.clock import Clock
from linprobe.pipeline.dealing import Dealer
from linprobe.pipeline.layer_fit import LayerFeatures, fit_layer, shared_by
from linprobe.pipeline.layer_probe import Probe
from linprobe.pipeline.meter import Meter
from linprobe.pipeline.task import SetName, Task
from linprobe.records.schema import ProbeRecord
from linprobe.runtime.distributed import ALONE, Ranks
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.heartbeat import LostProcess
from linprobe.runtime.text import layer_reason
from linprobe.runtime.threads import map_layers

_log = logging.getLogger(__name__)
_FLOAT64 = "float64"

LayerGroup = Mapping[str, Callable[[], LayerFeatures]]
"""Layers whose features are held together; each is taken once, by the thread that fits it."""

_Key = tuple[SetName, str]  # label set and layer


class LayerSource(Protocol):
    """A source of the features of a network's layers."""

    @property
    def num_features(self) -> Mapping[str, int]:
        """Layers in order, with the number of features of each."""
        ...

    @property
    def num_workers(self) -> int:
        """Number of narrow layers that may be fitted side by side."""
        ...

    def groups(self, meter: Meter, layers: Sequence[str]) -> Iterator[LayerGroup]:
        """Give these layers, as many at a time as the memory holds."""
        ...

    @property
    def rereads(self) -> bool:
        """Tell whether layers are to be read again in float64 where they need it."""
        ...

    def in_float64(self, layers: Sequence[str]) -> tuple["LayerSource | None", Mapping[str, str]]:
        """Give those of the layers that can be read in float64, and say why the others can't."""
        ...


class Shelf(Protocol):
    """Where finished probes are put at once, and those of an earlier call are found."""

    def finished(self, num_features: Mapping[str, int]) -> dict[str, Probe]:
        """Find what needs no more work, of layers with so many features."""
        ...

    def put(self, probe: Probe) -> None:
        """Keep a probe; several threads may call this."""
        ...


@dataclass(frozen=True)
class Probed:
    """Probes of one state of a network.

    Attributes:
        probes: by layer, in the order of the source.
        stages: seconds of "extract", "solve", "evaluate" and "controls", as shares of the wall
            time.
    """

    probes: dict[str, Probe]
    stages: dict[str, float]

    @property
    def records(self) -> tuple[ProbeRecord, ...]:
        """Records of the probes."""
        return tuple(probe.record for probe in self.probes.values())


@dataclass(frozen=True)
class Job:
    """The work on one of the label sets of a call.

    Attributes:
        task: labels, method and what to evaluate.
        meter: is told how it goes.
        shelf: has layers that are finished already, and takes each one that becomes so; only the
            first process asks it for finished ones.
    """

    task: Task
    meter: Meter
    shelf: Shelf | None = None


def probe_layers(
    source: LayerSource,
    task: Task,
    meter: Meter,
    shelf: Shelf | None = None,
    ranks: Ranks = ALONE,
) -> Probed:
    """Do the only `Job` of a call, as `probe_label_sets` does several."""
    return probe_label_sets(source, {None: Job(task, meter, shelf)}, ranks)[None]


def probe_label_sets(
    source: LayerSource, jobs: Mapping[SetName, Job], ranks: Ranks = ALONE
) -> dict[SetName, Probed]:
    """Fit, evaluate and record a probe of every layer to every label set.

    A layer that fails gets a record that says why, unless all do or the task is strict. Layers
    whose probes are `rounded` are read again in float64, where the source does that.

    Args:
        source: gives the features.
        jobs: by label set, all of the same rows in the same order.
        ranks: processes that make the same call, to whom layers are dealt; each gets all probes.

    Raises:
        LinprobeError: Features that can't be used; the message names the layer.
    """
    widths = source.num_features
    shares_rows = any(job.task.whole is not None for job in jobs.values())
    dealer = Dealer(ranks, widths, shares_rows=shares_rows)
    probes: dict[_Key, Probe] = {}
    for name, job in jobs.items():
        kept = job.shelf.finished(widths) if job.shelf is not None and ranks.leads else {}
        for layer, probe in kept.items():
            probes[name, layer] = probe
            job.meter.finished(probe.record)
    keeps = ranks.leads or not shares_rows  # of shared rows, all have the same probes
    work = _Work(widths, jobs, ranks.agreed(set(probes)), keeps=keeps)
    wanted = dealer.own_part([layer for layer in widths if not work.left(layer)])
    drowned: dict[_Key, Probe] = {}

    def sort(name: SetName, probe: Probe) -> Probe:
        """Keep those back that are to be read again."""
        if not (source.rereads and probe.record.rounded and probe.record.dtype != _FLOAT64):
            return work.finish(name, probe)
        drowned[name, probe.record.layer] = probe
        return probe

    probes |= work.fit(source, wanted, sort)
    errors = list(work.errors)
    if drowned:
        probes |= _read_again(source, drowned, work)
    probes = dealer.gathered(
        probes, errors, lambda key, record: jobs[key[0]].meter.finished(record)
    )
    stages = work.clock.stages()
    return {
        name: Probed(
            {layer: replace(probes[name, layer], classes=job.task.classes) for layer in widths},
            stages,
        )
        for name, job in jobs.items()
    }


class _Work:
    """Fits layers of one source or another to the label sets of some jobs."""

    def __init__(
        self,
        widths: Mapping[str, int],
        jobs: Mapping[SetName, Job],
        finished: Collection[_Key],
        *,
        keeps: bool,
    ) -> None:
        self._places = {layer: index for index, layer in enumerate(widths)}
        self._widths, self._jobs, self._keeps = widths, jobs, keeps
        self._finished = set(finished)
        self.strict = any(job.task.strict for job in jobs.values())
        self.clock, self.errors = Clock(), list[Exception]()

    def left(self, layer: str) -> list[SetName]:
        """Name the label sets for which a layer is not finished."""
        return [name for name in self._jobs if (name, layer) not in self._finished]

    def fit(
        self, source: LayerSource, layers: Sequence[str], then: Callable[[SetName, Probe], Probe]
    ) -> dict[_Key, Probe]:
        """Fit layers; `then` is called with each probe by the thread that fitted it.

        A layer whose rows on disk are not what was written there is extracted and fitted again.
        """
        damaged: list[str] = []
        found = self._fit_all(source, layers, then, damaged)
        return found | self._fit_all(source, list(damaged), then, None)

    def _fit_all(
        self,
        source: LayerSource,
        layers: Sequence[str],
        then: Callable[[SetName, Probe], Probe],
        damaged: list[str] | None,
    ) -> dict[_Key, Probe]:
        meter, found = next(iter(self._jobs.values())).meter, dict[_Key, Probe]()
        groups = source.groups(meter, layers) if layers else iter(())
        while (group := self.clock.next(groups)) is not None:
            sizes = {layer: self._widths[layer] for layer in group}
            fit_one = partial(self._fit, group, then, damaged)
            for some in map_layers(fit_one, sizes, source.num_workers):
                found |= some
        return found

    def _fit(
        self,
        group: LayerGroup,
        then: Callable[[SetName, Probe], Probe],
        damaged: list[str] | None,
        layer: str,
    ) -> dict[_Key, Probe]:
        names, place, found = self.left(layer), self._places[layer], dict[_Key, Probe]()
        features: LayerFeatures | Exception
        try:
            features = self._taken(group, layer, names)
        except Exception as error:
            features = error
        for name in names:
            job = self._jobs[name]
            try:
                if isinstance(features, Exception):
                    raise features
                on_solve = job.meter.solving(layer)
                probe = fit_layer(layer, place, features, job.task, on_solve, self.clock)
            except LostProcess:
                raise
            except Exception as error:
                if isinstance(error, DamagedRows) and damaged is not None:
                    _log.warning("layer %r: %s; the layer is extracted again", layer, error)
                    damaged.append(layer)
                    break
                if self.strict:
                    raise
                probe = _failed_probe(layer, place, self._widths[layer], error)
                error.__cause__ = error.__context__ = None  # whose frames hold the features
                self.errors.append(error.with_traceback(None))
            found[name, layer] = then(name, probe)
        return found

    def _taken(self, group: LayerGroup, layer: str, names: Sequence[SetName]) -> LayerFeatures:
        """Take a layer's features, and prepare once what several label sets are fitted to."""
        begun = time.perf_counter()
        features = group[layer]()
        self.clock.spend("extract", time.perf_counter() - begun)
        if len(names) == 1:
            return features
        return shared_by(features, layer, self._jobs[names[0]].task, self.clock)

    def finish(self, name: SetName, probe: Probe) -> Probe:
        """Keep and report a probe that needs no more work."""
        job = self._jobs[name]
        self._finished.add((name, probe.record.layer))
        if job.shelf is not None and self._keeps:
            job.shelf.put(probe)
        job.meter.finished(probe.record)
        return probe


def _read_again(
    source: LayerSource, drowned: Mapping[_Key, Probe], work: _Work
) -> dict[_Key, Probe]:
    """Fit layers as they are in float64; where that fails, keep what there is and say why."""
    layers = {layer for _, layer in drowned}
    wide, reasons = source.in_float64([layer for layer in source.num_features if layer in layers])
    found: dict[_Key, Probe] = {}

    def merge(name: SetName, probe: Probe) -> Probe:
        record = probe.record
        own = drowned[name, record.layer]
        if probe.weight is None:
            return work.finish(name, _kept(own, record.reason or record.status))
        if record.dtype != _FLOAT64:
            why = f"its values are those of {record.dtype} already"
            return work.finish(name, _kept(own, why))
        return work.finish(name, replace(probe, record=replace(record, native=own.record)))

    if wide is not None:
        try:
            found = work.fit(wide, list(wide.num_features), merge)
        except LinprobeError as error:
            if work.strict:
                raise
            reasons = {**dict.fromkeys(layers, str(error)), **reasons}
    left = drowned.keys() - found.keys()
    return found | {key: work.finish(key[0], _kept(drowned[key], reasons[key[1]])) for key in left}


def _kept(own: Probe, reason: str) -> Probe:
    return replace(own, record=replace(own.record, no_float64=reason.rstrip(".")))


def _failed_probe(layer: str, index: int, num_features: int, error: Exception) -> Probe:
    record = ProbeRecord(
        *(layer, index, num_features, None),
        status=str(Status.FAILED),
        reason=layer_reason(layer, error),
    )
    return Probe(record, None, None)
