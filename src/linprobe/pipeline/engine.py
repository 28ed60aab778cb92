"""The one engine: extract, fit and certify, evaluate and record, layer by layer.

`linprobe.probe`, `linprobe.fit_probes` and all experiments run this one loop; they differ in their
`LayerSource`, which gives the features.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from linprobe.core.features import DenseFeatures, FeatureMatrix
from linprobe.core.solvers.base import Status
from linprobe.evaluation.metrics import metric_records
from linprobe.evaluation.plan import evaluate_probe
from linprobe.evaluation.resampling import Array
from linprobe.evaluation.statistics import depth_steps, metric_steps, rate_interval
from linprobe.pipeline.export import float32_changes
from linprobe.pipeline.layer_probe import Probe
from linprobe.pipeline.meter import Meter
from linprobe.pipeline.nonfinite import nonfinite_reason
from linprobe.pipeline.task import Task
from linprobe.probes.base import (
    FailedProbe,
    FittedProbe,
    OnSolve,
    ProbeMethod,
    Targets,
    all_finite,
    check_splits,
    nonfinite,
)
from linprobe.probes.weights import row_weights
from linprobe.records.evidence import ControlRecord, Evaluation, MetricStep
from linprobe.records.predictions import Predictions
from linprobe.records.schema import CheckpointRecord, ProbeRecord
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.memory import is_out_of_memory
from linprobe.runtime.text import layer_reason, size_text
from linprobe.runtime.threads import map_layers


@dataclass(frozen=True)
class LayerFeatures:
    """Features of one layer, in buffers that may be overwritten.

    Attributes:
        train: (n_rows, n_features), in the task's order.
        test: (n_test, n_features).
        dtype: of the activations, before they became features.
        stated: how they were reduced, as `Reduction.stated` says it; None: not at all.
        columns: which coordinates a random reducer kept.
        offset: (n_features,) float64 that was subtracted from both splits; None: nothing was.
    """

    train: Tensor
    test: Tensor
    dtype: torch.dtype
    stated: str | None = None
    columns: Tensor | None = None
    offset: Tensor | None = None


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


def fit_layer(
    layer: str,
    index: int,
    features: LayerFeatures,
    task: Task,
    on_solve: OnSolve | None = None,
    clock: "Clock | None" = None,
) -> Probe:
    """Fit, evaluate and record the probe of one layer.

    Args:
        layer: its name.
        index: its place along the network.
        features: overwritten.
        task: labels, method and what to evaluate.
        on_solve: is told of each solve.
        clock: counts the seconds of each stage.

    Raises:
        LinprobeError: Features that can't be used; the message names the layer.
    """
    try:
        return _fit_and_evaluate(layer, index, features, task, on_solve, clock or Clock())
    except LinprobeError as error:
        raise LinprobeError(f"layer {layer!r}: {error}") from error
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise LinprobeError(_out_of_memory(layer, features)) from error


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


def _fit_and_evaluate(
    layer: str,
    index: int,
    features: LayerFeatures,
    task: Task,
    on_solve: OnSolve | None,
    clock: "Clock",
) -> Probe:
    targets, test_labels = task.on(features.train.device)
    features = replace(features, train=features.train[: task.num_train])
    with clock.stage("solve"):
        prepared, fitted = _fit(task.method(layer), features, targets, test_labels, on_solve)
    if prepared is None or isinstance(fitted, FailedProbe):
        assert isinstance(fitted, FailedProbe)
        record = _failed_record(layer, index, features, fitted)
        if fitted.status is Status.NONFINITE_FEATURES:
            splits = features.train, features.test
            reason = nonfinite_reason(*splits, task.order[: task.num_train], features.dtype)
            record = replace(record, reason=reason)
        return Probe(record, None, None, features.columns)
    with clock.stage("evaluate"):
        evaluation, deviations = evaluate_probe(
            *(fitted, targets.labels, test_labels, task.resamples),
            train_weight=row_weights(targets, task.config.class_weight),
        )
    predictions: Predictions | None = None
    controls: tuple[ControlRecord, ...] = ()
    missing: str | None = None
    if evaluation is not None:
        predictions = Predictions.of(fitted.test_logits, test_labels, deviations)
        has_controls = task.plan.controls is not None and task.plan.controls.fits_per_layer
        with clock.stage("controls" if has_controls else "evaluate"):
            prepared_too = (prepared, features.test)
            evaluation, controls, missing = task.plan.compare(
                layer, fitted, evaluation, prepared_too, targets, on_solve, task.strict
            )
    with clock.stage("evaluate"):
        record = _record(layer, index, features, fitted, evaluation, len(test_labels))
        raw = _raw(features, fitted)
        changes = float32_changes(
            *(raw["weight"], raw["bias"], features.test, fitted.test_logits), features.offset
        )
    record = replace(record, float32_changes=changes, missing=missing)
    tensors: dict[str, Any] = {name: tensor.cpu() for name, tensor in raw.items()}
    return Probe(
        record, columns=features.columns, predictions=predictions, controls=controls, **tensors
    )


def _raw(features: LayerFeatures, fitted: FittedProbe) -> dict[str, Tensor]:
    """The probe of features from which nothing was subtracted."""
    bias, mean, scale = fitted.bias, fitted.standardisation.mean, fitted.standardisation.scale
    if features.offset is not None:
        bias, mean = bias - fitted.weight @ features.offset, mean + features.offset
    scale = torch.as_tensor(scale, dtype=torch.float64)
    return {"weight": fitted.weight, "bias": bias, "mean": mean, "scale": scale}


def _fit(
    method: ProbeMethod,
    features: LayerFeatures,
    targets: Targets,
    test_labels: Tensor,
    on_solve: OnSolve | None,
) -> tuple[FeatureMatrix | None, FittedProbe | FailedProbe]:
    """Fit and test a probe; also return the training features as the method prepared them."""
    check_splits(features.train, targets.labels, features.test, test_labels)
    started = time.perf_counter()
    if not all_finite(features.test):
        return None, nonfinite(DenseFeatures(features.test), targets.num_classes, "test")
    prepared = method.prepare(
        DenseFeatures(features.train, owned=True, born=features.dtype), targets
    )
    seconds = time.perf_counter() - started
    if isinstance(prepared, FailedProbe):
        return None, prepared
    fitted = method.fit(prepared, targets, on_solve)
    if isinstance(fitted, FailedProbe):
        return None, fitted
    fitted = fitted.tested(features.test, test_labels)
    return prepared, replace(fitted, seconds=fitted.seconds + seconds)


def _record(
    layer: str,
    index: int,
    features: LayerFeatures,
    fitted: FittedProbe,
    evaluation: Evaluation | None,
    num_test: int,
) -> ProbeRecord:
    return ProbeRecord(
        **_identity(layer, index, features),
        l2=fitted.l2,
        l2_at_edge=fitted.l2_at_edge,
        status=str(fitted.status),
        objective=fitted.objective,
        duality_gap=fitted.duality_gap,
        grad_norm=fitted.grad_norm,
        bias_residual=fitted.bias_residual,
        train_error_rate=fitted.train_error_rate,
        validation_error_rate=fitted.validation_error_rate,
        test_error_rate=fitted.test_error_rate,
        test_error_ci95=rate_interval(fitted.test_error_rate, num_test),
        train_cross_entropy=fitted.train_cross_entropy,
        validation_cross_entropy=fitted.validation_cross_entropy,
        test_cross_entropy=fitted.test_cross_entropy,
        num_passes=fitted.num_passes,
        seconds=fitted.seconds,
        evaluation=evaluation,
        rounded=fitted.rounded,
        scale=fitted.scale,
    )


def _failed_record(
    layer: str, index: int, features: LayerFeatures, failed: FailedProbe
) -> ProbeRecord:
    return ProbeRecord(
        **_identity(layer, index, features),
        status=str(failed.status),
        reason=failed.reason,
        seconds=failed.seconds,
    )


def _failed_probe(layer: str, index: int, num_features: int, error: Exception) -> Probe:
    record = ProbeRecord(
        *(layer, index, num_features, None),
        status=str(Status.FAILED),
        reason=layer_reason(layer, error),
    )
    return Probe(record, None, None)


def _identity(layer: str, index: int, features: LayerFeatures) -> dict[str, Any]:
    """Fields of a record that don't depend on how its probe was fitted."""
    return {
        "layer": layer,
        "index": index,
        "num_features": features.train.shape[1],
        "reducer": features.stated,
        "dtype": str(features.dtype).removeprefix("torch."),
    }


def _out_of_memory(layer: str, features: LayerFeatures) -> str:
    size = features.train.nbytes + features.test.nbytes
    return (
        f"layer {layer!r}: no memory left to solve {features.train.shape[1]:,} features "
        f"({size_text(size)}); lower memory_bytes, or use "
        f"reduce='random:{max(1, features.train.shape[1] // 4)}'"
    )


class Clock:
    """Shares the wall time among the stages; threads count their own seconds."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._waited = 0.0
        self._spent = {"extract": 0.0, "solve": 0.0, "evaluate": 0.0, "controls": 0.0}

    def next(self, groups: Iterator[LayerGroup]) -> LayerGroup | None:
        """Take the next group and count the time that it takes."""
        begun = time.perf_counter()
        group = next(groups, None)
        self._waited += time.perf_counter() - begun
        return group

    def spend(self, stage: str, seconds: float) -> None:
        """Count seconds of one thread."""
        self._spent[stage] += seconds

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the seconds of a block."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.spend(name, time.perf_counter() - begun)

    def stages(self) -> dict[str, float]:
        """Seconds of wall time of each stage."""
        wall = time.perf_counter() - self._started - self._waited
        total = sum(self._spent.values()) or 1.0
        shares = {stage: wall * seconds / total for stage, seconds in self._spent.items()}
        shares["extract"] += self._waited
        return {k: s for k, s in shares.items() if s or k != "controls"}
