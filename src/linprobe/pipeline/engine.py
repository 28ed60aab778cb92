"""The one engine: extract, fit and certify, evaluate and record, layer by layer.

`linprobe.probe`, `linprobe.fit_probes` and all experiments run this one loop; they differ in their
`LayerSource`, which gives the features.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from linprobe.core.features import DamagedRows
from linprobe.core.solvers.base import Status
from linprobe.evaluation.metrics import metric_records
from linprobe.evaluation.resampling import Array
from linprobe.evaluation.statistics import depth_steps, metric_steps
from linprobe.pipeline.clock import Clock
from linprobe.pipeline.dealing import Dealer
from linprobe.pipeline.layer_fit import LayerFeatures, fit_layer
from linprobe.pipeline.layer_probe import Probe
from linprobe.pipeline.meter import Meter
from linprobe.pipeline.task import Task
from linprobe.records.evidence import ControlRecord, MetricStep
from linprobe.records.schema import CheckpointRecord, ProbeRecord
from linprobe.runtime.distributed import ALONE, Ranks
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.heartbeat import LostProcess
from linprobe.runtime.text import layer_reason
from linprobe.runtime.threads import map_layers

_log = logging.getLogger(__name__)
_FLOAT64 = "float64"

LayerGroup = Mapping[str, Callable[[], LayerFeatures]]
"""Layers whose features are held together; each is taken once, by the thread that fits it."""


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


def probe_layers(
    source: LayerSource,
    task: Task,
    meter: Meter,
    shelf: Shelf | None = None,
    ranks: Ranks = ALONE,
) -> Probed:
    """Fit, evaluate and record a probe of every layer.

    A layer that fails gets a record that says why, unless all do or the task is strict. Layers
    whose probes are `rounded` are read again in float64, where the source does that.

    Args:
        source: gives the features.
        task: labels, method and what to evaluate.
        meter: is told how it goes.
        shelf: has layers that are finished already, and takes each one that becomes so; only the
            first process asks it for finished ones.
        ranks: processes that make the same call, to whom layers are dealt; each gets all probes.

    Raises:
        LinprobeError: Features that can't be used; the message names the layer.
    """
    widths = source.num_features
    dealer = Dealer(ranks, widths, shares_rows=task.whole is not None)
    probes = shelf.finished(widths) if shelf is not None and ranks.leads else {}
    for probe in probes.values():
        meter.finished(probe.record)
    keeps = ranks.leads or task.whole is None  # of shared rows, all have the same probes
    work = _Work(widths, task, meter, shelf if keeps else None)
    wanted = dealer.own_part(probes)
    drowned: dict[str, Probe] = {}

    def sort(probe: Probe) -> Probe:
        """Keep those back that are to be read again."""
        if not (source.rereads and probe.record.rounded and probe.record.dtype != _FLOAT64):
            return work.finish(probe)
        drowned[probe.record.layer] = probe
        return probe

    for probe in work.fit(source, wanted, sort):
        probes[probe.record.layer] = probe
    errors = list(work.errors)
    if drowned:
        probes |= _read_again(source, drowned, work)
    probes = dealer.gathered(probes, errors, meter.finished)
    named = {layer: replace(probes[layer], classes=task.classes) for layer in widths}
    return Probed(named, work.clock.stages())


class _Work:
    """Fits layers of one source or another, for one task."""

    def __init__(
        self, widths: Mapping[str, int], task: Task, meter: Meter, shelf: Shelf | None
    ) -> None:
        self._places = {layer: index for index, layer in enumerate(widths)}
        self._widths, self.task, self._meter, self._shelf = widths, task, meter, shelf
        self.clock, self.errors = Clock(), list[Exception]()

    def fit(
        self, source: LayerSource, layers: Sequence[str], then: Callable[[Probe], Probe]
    ) -> Iterator[Probe]:
        """Fit layers; `then` is called with each probe by the thread that fitted it.

        A layer whose rows on disk are not what was written there is extracted and fitted again.
        """
        damaged: list[str] = []
        yield from self._fit_all(source, layers, then, damaged)
        yield from self._fit_all(source, list(damaged), then, None)

    def _fit_all(
        self,
        source: LayerSource,
        layers: Sequence[str],
        then: Callable[[Probe], Probe],
        damaged: list[str] | None,
    ) -> Iterator[Probe]:
        groups = source.groups(self._meter, layers) if layers else iter(())
        while (group := self.clock.next(groups)) is not None:
            sizes = {layer: self._widths[layer] for layer in group}
            fit_one = partial(self._fit, group, then, damaged)
            yield from filter(None, map_layers(fit_one, sizes, source.num_workers))

    def _fit(
        self,
        group: LayerGroup,
        then: Callable[[Probe], Probe],
        damaged: list[str] | None,
        layer: str,
    ) -> Probe | None:
        begun, place = time.perf_counter(), self._places[layer]
        try:
            features = group[layer]()
            self.clock.spend("extract", time.perf_counter() - begun)
            on_solve = self._meter.solving(layer)
            probe = fit_layer(layer, place, features, self.task, on_solve, self.clock)
        except LostProcess:
            raise
        except Exception as error:
            if isinstance(error, DamagedRows) and damaged is not None:
                _log.warning("layer %r: %s; the layer is extracted again", layer, error)
                damaged.append(layer)
                return None
            if self.task.strict:
                raise
            probe = _failed_probe(layer, place, self._widths[layer], error)
            error.__cause__ = error.__context__ = None  # whose frames hold the features
            self.errors.append(error.with_traceback(None))
        return then(probe)

    def finish(self, probe: Probe) -> Probe:
        """Keep and report a probe that needs no more work."""
        if self._shelf is not None:
            self._shelf.put(probe)
        self._meter.finished(probe.record)
        return probe


def _read_again(source: LayerSource, drowned: Mapping[str, Probe], work: _Work) -> dict[str, Probe]:
    """Fit layers as they are in float64; where that fails, keep what there is and say why."""
    wide, reasons = source.in_float64([layer for layer in source.num_features if layer in drowned])
    found: dict[str, Probe] = {}

    def merge(probe: Probe) -> Probe:
        own, record = drowned[probe.record.layer], probe.record
        if probe.weight is None:
            return work.finish(_kept(own, record.reason or record.status))
        if record.dtype != _FLOAT64:
            return work.finish(_kept(own, f"its values are those of {record.dtype} already"))
        return work.finish(replace(probe, record=replace(record, native=own.record)))

    if wide is not None:
        try:
            for probe in work.fit(wide, list(wide.num_features), merge):
                found[probe.record.layer] = probe
        except LinprobeError as error:
            if work.task.strict:
                raise
            reasons = {**dict.fromkeys(drowned, str(error)), **reasons}
    left = drowned.keys() - found.keys()
    return found | {layer: work.finish(_kept(drowned[layer], reasons[layer])) for layer in left}


def _kept(own: Probe, reason: str) -> Probe:
    return replace(own, record=replace(own.record, no_float64=reason.rstrip(".")))


def checkpoint_record(
    name: str,
    probed: Probed,
    task: Task,
    *,
    controls: tuple[ControlRecord, ...] = (),
    step: int = 0,
    network_test_error_rate: float = float("nan"),
    stages: Mapping[str, float] | None = None,
) -> CheckpointRecord:
    """Put the records of all layers together, with the paired tests between them.

    Args:
        name: of the state of the network.
        probed: its probes.
        task: that they were fitted for.
        controls: those that belong to no layer, and those of the untrained network.
        step: training minibatches before it.
        network_test_error_rate: of the network's own output; NaN: not known.
        stages: seconds of further stages.
    """
    probes = probed.probes.values()
    predicted = {
        probe.record.layer: probe.predictions.predicted
        for probe in probes
        if probe.predictions is not None
    }
    return CheckpointRecord(
        name=name,
        step=step,
        network_test_error_rate=network_test_error_rate,
        stages={**(stages or {}), **probed.stages},
        probes=probed.records,
        steps=depth_steps(predicted, task.test_labels),
        controls=(*(c for probe in probes for c in probe.controls), *controls),
        metric_steps=tuple(_metric_steps(probed.probes, task)),
    )


def _metric_steps(probes: Mapping[str, Probe], task: Task) -> Iterator[MetricStep]:
    smallest = int(task.test_labels.unique(return_counts=True)[1].min())
    for metric in metric_records():
        values: dict[str, float] = {}
        deviations: dict[str, Array] = {}
        for layer, probe in probes.items():
            found, kept = probe.record.evaluation, probe.predictions
            if found and kept and metric.name in kept.deviations:
                values[layer] = found.metrics[metric.name]
                deviations[layer] = kept.deviations[metric.name].numpy()
        yield from metric_steps(metric.name, values, deviations, smallest)


def _failed_probe(layer: str, index: int, num_features: int, error: Exception) -> Probe:
    record = ProbeRecord(
        *(layer, index, num_features, None),
        status=str(Status.FAILED),
        reason=layer_reason(layer, error),
    )
    return Probe(record, None, None)
