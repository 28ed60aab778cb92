"""The work on one layer: fit and certify its probe, evaluate it, record it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from linprobe.core.features import (
    DamagedRows,
    DenseFeatures,
    FeatureMatrix,
    StreamedFeatures,
    as_features,
)
from linprobe.core.solvers.base import Status
from linprobe.evaluation.plan import evaluate_probe
from linprobe.evaluation.statistics import rate_interval
from linprobe.pipeline.clock import Clock
from linprobe.pipeline.export import float32_changes
from linprobe.pipeline.layer_probe import Probe
from linprobe.pipeline.nonfinite import nonfinite_reason
from linprobe.pipeline.task import Task
from linprobe.probes.base import FailedProbe, FittedProbe, OnSolve, ProbeMethod, Targets
from linprobe.probes.checks import all_finite, check_splits, nonfinite
from linprobe.probes.weights import row_weights
from linprobe.records.evidence import ControlRecord, Evaluation
from linprobe.records.predictions import Predictions
from linprobe.records.schema import ProbeRecord, TriedPenalty
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.heartbeat import LostProcess
from linprobe.runtime.memory import is_out_of_memory
from linprobe.runtime.text import size_text

_TRIED = [field.name for field in fields(TriedPenalty)]


@dataclass(frozen=True)
class LayerFeatures:
    """Features of one layer: tensors, which may be overwritten, or streamed from where they are.

    Attributes:
        train: (n_rows, n_features), in the task's order.
        test: (n_test, n_features).
        dtype: of the activations, before they became features.
        stated: how they were reduced, as `Reduction.stated` says it; None: not at all.
        columns: which coordinates a random reducer kept.
        offset: (n_features,) float64 that was subtracted from both splits; None: nothing was.
        born: dtype that the values had been rounded to before; None: `dtype`.
        rounded_at: (n_features,) float64, the part of `offset` that was there when values were
            rounded; None: all of it.
        prepared: the training rows as their method has prepared them for several label sets, or why
            it could not; None: each fit prepares them for itself.
        owned: a fit may overwrite `train`.
    """

    train: Tensor | StreamedFeatures
    test: Tensor | StreamedFeatures
    dtype: torch.dtype
    stated: str | None = None
    columns: Tensor | None = None
    offset: Tensor | None = None
    born: torch.dtype | None = None
    rounded_at: Tensor | None = None
    prepared: FeatureMatrix | FailedProbe | None = None
    owned: bool = True

    @property
    def num_features(self) -> int:
        """Number of columns."""
        return as_features(self.train).num_features

    def first(self, count: int) -> "LayerFeatures":
        """Leave out training rows past the first ones: those of weight zero."""
        rows = self.train
        some = rows[:count] if isinstance(rows, Tensor) else rows.rows(0, count)
        return replace(self, train=some)


def fit_layer(
    layer: str,
    index: int,
    features: LayerFeatures,
    task: Task,
    on_solve: OnSolve | None = None,
    clock: Clock | None = None,
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
    with _naming(layer, features):
        return _fit_and_evaluate(layer, index, features, task, on_solve, clock or Clock())


def shared_by(features: LayerFeatures, layer: str, task: Task, clock: Clock) -> LayerFeatures:
    """Prepare features once for all label sets that they are fitted to.

    Weights of classes make a problem of its own of each label set: its fit prepares a copy.

    Args:
        features: overwritten.
        layer: its name.
        task: of one of the label sets, whose rows are those of all.
        clock: counts the seconds.

    Raises:
        LinprobeError: As `fit_layer`.
    """
    features = features.first(task.num_train)
    if task.config.class_weight is not None:
        return replace(features, owned=False)
    targets, _ = task.on(features.train.device)
    with _naming(layer, features), clock.stage("solve"):
        return replace(features, prepared=_prepared(task.method(layer), features, targets))


@contextmanager
def _naming(layer: str, features: LayerFeatures) -> Iterator[None]:
    """Say of what goes wrong within the block which layer it is about."""
    try:
        yield
    except (DamagedRows, LostProcess):  # the engine extracts the layer again, or ends
        raise
    except LinprobeError as error:
        raise LinprobeError(f"layer {layer!r}: {error}") from error
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise LinprobeError(_out_of_memory(layer, features)) from error


def _fit_and_evaluate(
    layer: str,
    index: int,
    features: LayerFeatures,
    task: Task,
    on_solve: OnSolve | None,
    clock: Clock,
) -> Probe:
    whole = task.whole or task
    targets, test_labels = task.on(features.train.device)
    features = features.first(task.num_train)
    with clock.stage("solve"):
        prepared, fitted = _fit(task.method(layer), features, targets, test_labels, on_solve)
    if prepared is None or isinstance(fitted, FailedProbe):
        assert isinstance(fitted, FailedProbe)
        record = _failed_record(layer, index, features, fitted)
        if fitted.status is Status.NONFINITE_FEATURES and task.whole is None:
            splits = as_features(features.train), as_features(features.test)
            reason = nonfinite_reason(*splits, task.order[: task.num_train], features.dtype)
            record = replace(record, reason=reason)
        return Probe(record, None, None, features.columns)
    with clock.stage("evaluate"):
        all_targets, all_test_labels = whole.on(features.train.device)
        evaluation, deviations = evaluate_probe(
            *(fitted, all_targets.labels, all_test_labels, whole.resamples),
            train_weight=row_weights(all_targets, task.config.class_weight),
        )
    predictions: Predictions | None = None
    controls: tuple[ControlRecord, ...] = ()
    missing: str | None = None
    if evaluation is not None:
        predictions = Predictions.of(fitted.test_logits, all_test_labels, deviations)
        has_controls = task.plan.controls is not None and task.plan.controls.fits_per_layer
        with clock.stage("controls" if has_controls else "evaluate"):
            prepared_too = (prepared, features.test)
            evaluation, controls, missing = task.plan.compare(
                layer, fitted, evaluation, prepared_too, targets, on_solve, task.strict
            )
    with clock.stage("evaluate"):
        record = _record(layer, index, features, fitted, evaluation, len(all_test_labels))
        raw, logits = _raw(features, fitted), fitted.test_logits[:, task.first_test_row :]
        here = float32_changes(raw["weight"], raw["bias"], features.test, logits, features.offset)
        changes = int(targets.sums.total(torch.tensor(here)))
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
    check_splits(features.train, targets.labels, features.test, test_labels, targets.sums)
    started = time.perf_counter()
    if not all_finite(features.test, targets.sums):
        return None, nonfinite(as_features(features.test), targets.num_classes, "test")
    prepared = features.prepared
    if prepared is None:
        prepared = _prepared(method, features, targets)
    seconds = time.perf_counter() - started
    if isinstance(prepared, FailedProbe):
        return None, prepared
    fitted = method.fit(prepared, targets, on_solve)
    if isinstance(fitted, FailedProbe):
        return None, fitted
    fitted = fitted.tested(features.test, test_labels, targets.sums)
    return prepared, replace(fitted, seconds=fitted.seconds + seconds)


def _prepared(
    method: ProbeMethod, features: LayerFeatures, targets: Targets
) -> FeatureMatrix | FailedProbe:
    train: FeatureMatrix | Tensor = features.train
    if isinstance(train, Tensor):
        born, offset = features.born or features.dtype, features.rounded_at
        offset = features.offset if offset is None else offset
        train = DenseFeatures(train, owned=features.owned, born=born, offset=offset)
    return method.prepare(train, targets)


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
        path=tuple(TriedPenalty(**{k: getattr(p, k) for k in _TRIED}) for p in fitted.path),
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


def _identity(layer: str, index: int, features: LayerFeatures) -> dict[str, Any]:
    """Fields of a record that don't depend on how its probe was fitted."""
    return {
        "layer": layer,
        "index": index,
        "num_features": features.num_features,
        "reducer": features.stated,
        "dtype": str(features.born or features.dtype).removeprefix("torch."),
    }


def _out_of_memory(layer: str, features: LayerFeatures) -> str:
    width, splits = features.num_features, map(as_features, (features.train, features.test))
    size = sum(x.dtype.itemsize * width * x.num_rows for x in splits)
    return (
        f"layer {layer!r}: no memory left to solve {width:,} features ({size_text(size)}); lower "
        f"memory_bytes, or use reduce='random:{max(1, width // 4)}'"
    )
