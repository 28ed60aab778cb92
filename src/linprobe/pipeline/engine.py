"""The one engine: extract, fit and certify, evaluate and record, layer by layer.

`linprobe.probe`, `linprobe.fit_probes` and all experiments run this one loop; they differ in their
`LayerSource`, which gives the features.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from linprobe.core.solvers.base import Status
from linprobe.evaluation.metrics import metric_records
from linprobe.evaluation.resampling import Array
from linprobe.evaluation.statistics import depth_steps, metric_steps
from linprobe.pipeline.clock import Clock
from linprobe.pipeline.layer_fit import LayerFeatures, fit_layer
from linprobe.pipeline.layer_probe import Probe
from linprobe.pipeline.meter import Meter
from linprobe.pipeline.task import Task
from linprobe.records.evidence import ControlRecord, MetricStep
from linprobe.records.schema import CheckpointRecord, ProbeRecord
from linprobe.runtime.text import layer_reason
from linprobe.runtime.threads import map_layers

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
    source: LayerSource, task: Task, meter: Meter, shelf: Shelf | None = None
) -> Probed:
    """Fit, evaluate and record a probe of every layer.

    A layer that fails gets a record that says why, unless all do or the task is strict.

    Args:
        source: gives the features.
        task: labels, method and what to evaluate.
        meter: is told how it goes.
        shelf: has layers that are finished already, and takes each one that becomes so.

    Raises:
        LinprobeError: Features that can't be used; the message names the layer.
    """
    widths = source.num_features
    places = {layer: index for index, layer in enumerate(widths)}
    probes = {} if shelf is None else shelf.finished(widths)
    for probe in probes.values():
        meter.finished(probe.record)
    wanted = [layer for layer in widths if layer not in probes]
    clock, groups = Clock(), source.groups(meter, wanted) if wanted else iter(())
    errors: list[Exception] = []

    def fit(group: LayerGroup, layer: str) -> Probe:
        begun = time.perf_counter()
        try:
            features = group[layer]()
            clock.spend("extract", time.perf_counter() - begun)
            probe = fit_layer(layer, places[layer], features, task, meter.solving(layer), clock)
        except Exception as error:
            if task.strict:
                raise
            probe = _failed_probe(layer, places[layer], widths[layer], error)
            error.__cause__ = error.__context__ = None  # whose frames hold the features
            errors.append(error.with_traceback(None))
        if shelf is not None:
            shelf.put(probe)
        meter.finished(probe.record)
        return probe

    while (group := clock.next(groups)) is not None:
        sizes = {layer: widths[layer] for layer in group}
        for probe in map_layers(partial(fit, group), sizes, source.num_workers):
            probes[probe.record.layer] = probe
    if errors and len(errors) == len(probes):
        raise errors[0]
    named = {layer: replace(probes[layer], classes=task.classes) for layer in widths}
    return Probed(named, clock.stages())


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
