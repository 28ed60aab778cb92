"""The record of one state of a network: those of its layers, and the paired tests between them."""

from collections.abc import Iterator, Mapping

from linprobe.evaluation.metrics import metric_records
from linprobe.evaluation.resampling import Array
from linprobe.evaluation.statistics import depth_steps, metric_steps
from linprobe.pipeline.engine import Probed
from linprobe.pipeline.layer_probe import Probe
from linprobe.pipeline.task import Task
from linprobe.records.evidence import ControlRecord, MetricStep
from linprobe.records.schema import CheckpointRecord


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
