"""Probes of all probe points of one network state."""

import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from threading import Lock

import torch
from torch import Tensor

from linprobe.activations.features import extract_features, feature_widths, plan_groups
from linprobe.core.features import DenseFeatures
from linprobe.evaluation.controls import Controls, Task
from linprobe.evaluation.plan import Extras
from linprobe.experiments.networks import ConvNet, DeepMLP
from linprobe.experiments.settings import Samples, Settings
from linprobe.pipeline.minibatch import EpochReport, OnEpoch, SGDProtocol, train_probes
from linprobe.pipeline.recording import evaluate_probe, probe_record
from linprobe.probes.base import (
    FailedProbe,
    FittedProbe,
    ProbeMethod,
    Targets,
    all_finite,
    nonfinite,
)
from linprobe.probes.config import ProbeConfig
from linprobe.probes.given import GivenProbe
from linprobe.probes.holdout import num_held_out
from linprobe.probes.softmax import SoftmaxProbe
from linprobe.records.evidence import ControlRecord
from linprobe.records.predictions import Predictions
from linprobe.records.schema import ProbeRecord
from linprobe.runtime.threads import NARROW, map_layers

Network = ConvNet | DeepMLP
OnSolve = Callable[[str, float, float, float], None]
Features = dict[str, Tensor]

FitLayer = Callable[[str, Tensor, Tensor, OnSolve], FittedProbe | FailedProbe]
"""Called as ``fit(layer, train, test, on_solve)`` with features that may be overwritten: how a
layer's probe comes about."""


def _ignore(report: EpochReport) -> None:
    """Default of `LayerWatcher.trained`."""


@dataclass(frozen=True)
class LayerWatcher:
    """Who is told how probing goes on; every method of it is called with the layer's name.

    Calls come from several threads, one at a time, about layers in any order.

    Attributes:
        extracting: called with the names of layers whose features are being computed.
        solving: gives the receiver of a layer's solver events, as `fit_probe` takes it.
        finished: called with each record.
        trained: called after each epoch of probes that are trained all at once.
    """

    extracting: Callable[[tuple[str, ...]], None]
    solving: Callable[[str], OnSolve]
    finished: Callable[[ProbeRecord], None]
    trained: OnEpoch = _ignore


@dataclass(frozen=True)
class Probed:
    """Probes of one network state.

    Attributes:
        records: in the order of the probe points.
        tensors: ``LAYER.weight`` (n_classes, n_features) and ``LAYER.bias`` (n_classes,),
            float64 on raw features, on the CPU.
        predictions: of each layer whose features are finite.
        controls: those of layers.
        stages: seconds of "extract", "solve" and "evaluate", and of "controls" if any, as the
            clock on the wall counts them.
    """

    records: tuple[ProbeRecord, ...]
    tensors: dict[str, Tensor]
    predictions: dict[str, Predictions]
    controls: tuple[ControlRecord, ...]
    stages: dict[str, float]


def layer_widths(network: Network, samples: Samples, device: str) -> dict[str, int]:
    """Number of features of each probe point, in order."""
    example = network.preprocess(samples.train_images[:1]).to(device)
    points = network.probe_points
    widths = feature_widths(network, example, list(points.values()))
    return {layer: widths[tap] for layer, tap in points.items()}


def control_task(network: Network, samples: Samples, settings: Settings) -> Task:
    """What controls start from: labels, and flattened inputs where a control needs them."""
    data, device = samples.dataset, settings.device
    inputs = None
    if {"random_features", "control_task"} & set(settings.controls.names):
        splits = (samples.train_images, data.test_images)
        train, test = (network.preprocess(x).flatten(1).to(device) for x in splits)
        inputs = (train, test)
    labels = samples.train_labels.to(device), data.test_labels.to(device)
    return Task(*labels, data.num_classes, inputs)


def extras_of(task: Task, settings: Settings) -> Extras:
    """What the settings ask for beside the probes."""
    seed = settings.seed
    config, probe = replace(settings.controls, seed=seed), replace(settings.probe, seed=seed)
    return Extras(Controls(config, task, probe), settings.mdl)


def probe_layers(
    network: Network,
    samples: Samples,
    settings: Settings,
    watcher: LayerWatcher,
    extras: Extras | None = None,
) -> Probed:
    """Fit a probe at every probe point, holding a bounded amount of features at a time.

    Args:
        network: on ``settings.device``; left as it was.
        samples: what to probe on.
        settings: device, memory budget and protocol.
        watcher: progress.
        extras: what to compute beside each probe.
    """
    data, points = samples.dataset, network.probe_points
    splits = [network.preprocess(x) for x in (samples.train_images, data.test_images)]
    labels = [y.to(settings.device) for y in (samples.train_labels, data.test_labels)]
    widths = layer_widths(network, samples, settings.device)
    config = replace(settings.probe, seed=settings.seed)
    started = time.perf_counter()
    fit_layer = _fit_layer(network, splits[0], labels, widths, data.num_classes, settings, watcher)
    train_seconds = time.perf_counter() - started
    fitting = _Fitting(fit_layer, labels[0], labels[1], config, extras or Extras(), watcher)
    places = {layer: index for index, layer in enumerate(points)}
    # A GPU's layers are not held up by the number of threads.
    at_once = torch.get_num_threads() if settings.device == "cpu" else 1
    fitted: list[_Fitted] = []
    extract_seconds, fit_seconds = 0.0, train_seconds
    dtype = torch.float64 if settings.float64 else torch.float32
    probed = network if dtype == torch.float32 else deepcopy(network).double()
    budget = settings.feature_bytes * 4 / dtype.itemsize  # groups are planned in float32
    groups = plan_groups(widths, sum(map(len, splits)), budget)
    rooms = _rooms(groups, widths, splits, dtype, settings.device)
    for group in groups:
        watcher.extracting(group)
        started = time.perf_counter()
        train, test = (
            extract_features(
                *(probed, x.to(dtype), [points[layer] for layer in group]),
                device=settings.device,
                dtype=dtype,
                room=room,
            )
            for x, room in zip(splits, rooms, strict=True)
        )
        extracted = time.perf_counter()

        def fit(layer: str, train: Features = train, test: Features = test) -> _Fitted:
            tap = points[layer]
            # Popped, so that a layer's features on a GPU are freed once its probe is done.
            return fitting.fit(layer, places[layer], train.pop(tap), test.pop(tap))

        fitted += map_layers(fit, {layer: widths[layer] for layer in group}, at_once)
        extract_seconds += extracted - started
        fit_seconds += time.perf_counter() - extracted
    fitted.sort(key=lambda part: part.record.index)
    return _gather(fitted, extract_seconds, fit_seconds)


def _fit_layer(
    network: Network,
    inputs: Tensor,
    labels: Sequence[Tensor],
    widths: Mapping[str, int],
    num_classes: int,
    settings: Settings,
    watcher: LayerWatcher,
) -> FitLayer:
    """The settings' protocol: each layer solved when its features come, or all trained at once."""
    protocol, points = settings.probe_training, network.probe_points
    num_held = num_held_out(len(inputs), settings.probe.validation_fraction)
    num_fit, targets = len(inputs) - num_held, Targets(labels[0], num_classes, num_held)

    def fit_layer(method: Callable[[str], ProbeMethod]) -> FitLayer:
        def fit(
            layer: str, train: Tensor, test: Tensor, on_solve: OnSolve
        ) -> FittedProbe | FailedProbe:
            features = DenseFeatures(train, owned=True)
            if not all_finite(test):
                return nonfinite(features, num_classes, "test")
            fitted = method(layer).fit(features, targets, on_solve)
            return fitted if isinstance(fitted, FailedProbe) else fitted.tested(test, labels[1])

        return fit

    if protocol is None:
        config = replace(settings.probe, seed=settings.seed)
        return fit_layer(lambda _: SoftmaxProbe(config))
    l2, tol = protocol.certificate_l2, settings.probe.tol
    trained = train_probes(
        *(network, inputs, labels[0], {points[layer]: width for layer, width in widths.items()}),
        protocol,
        num_classes=num_classes,
        num_fit=num_fit,
        seed=settings.seed,
        on_epoch=watcher.trained,
    )
    return fit_layer(lambda layer: GivenProbe(trained[points[layer]], l2, tol))


@dataclass(frozen=True)
class _Fitted:
    """What was found of one layer; seconds are of the thread that fitted it."""

    record: ProbeRecord
    weight: Tensor
    bias: Tensor
    predictions: Predictions | None
    controls: tuple[ControlRecord, ...]
    evaluate_seconds: float
    extras_seconds: float


class _Fitting:
    """Fits layers, several at a time if need be; the watcher is told by one at a time."""

    def __init__(
        self,
        fit_layer: FitLayer,
        train_labels: Tensor,
        test_labels: Tensor,
        config: ProbeConfig,
        extras: Extras,
        watcher: LayerWatcher,
    ) -> None:
        self.fit_layer, self.labels = fit_layer, (train_labels, test_labels)
        self.config, self.extras, self.watcher = config, extras, watcher
        self._telling = Lock()

    def fit(self, layer: str, index: int, train: Tensor, test: Tensor) -> _Fitted:
        """Fit a layer's probe, and what else is asked for, to features that are overwritten."""
        labels, on_event = self.labels, self._on_event(layer)
        offset = train.new_zeros(train.shape[1], dtype=torch.float64)
        if train.dtype == torch.float64:
            # What varies fits float32 once the mean is gone.
            offset = train.mean(0)
            train, test = (x.sub_(offset).float() for x in (train, test))
        probe = self.fit_layer(layer, train, test, on_event)
        solved = time.perf_counter()
        shown = evaluate_probe(probe, *labels)
        evaluation, predictions = shown or (None, None)
        evaluated = time.perf_counter()
        evaluation, controls = self.extras.of_layer(
            *(layer, probe, evaluation, (train, labels[0]), test, self.config, on_event)
        )
        compared = time.perf_counter()
        record = probe_record(layer, index, probe, len(labels[1]), evaluation)
        with self._telling:
            self.watcher.finished(record)
        if isinstance(probe, FailedProbe):
            weight = torch.full((probe.num_classes, probe.num_features), torch.nan)
            bias = weight[:, 0].clone()
        else:
            weight, bias = probe.weight, probe.bias - probe.weight @ offset
            weight, bias = weight.cpu().contiguous(), bias.cpu().contiguous()
        seconds = evaluated - solved, compared - evaluated
        return _Fitted(record, weight, bias, predictions, controls, *seconds)

    def _on_event(self, layer: str) -> OnSolve:
        with self._telling:
            tell = self.watcher.solving(layer)

        def on_event(stage: str, l2: float, num_passes: float, duality_gap: float) -> None:
            with self._telling:
                tell(stage, l2, num_passes, duality_gap)

        return on_event


def _gather(fitted: list[_Fitted], extract_seconds: float, fit_seconds: float) -> Probed:
    """Put layers together; the time that they took is shared among the stages."""
    spent = {
        "solve": sum(part.record.seconds for part in fitted),
        "evaluate": sum(part.evaluate_seconds for part in fitted),
        "controls": sum(part.extras_seconds for part in fitted),
    }
    controls = tuple(control for part in fitted for control in part.controls)
    if not controls:
        spent["evaluate"] += spent.pop("controls")
    wall = fit_seconds / sum(spent.values())
    tensors = {}
    for part in fitted:
        tensors[f"{part.record.layer}.weight"] = part.weight
        tensors[f"{part.record.layer}.bias"] = part.bias
    return Probed(
        records=tuple(part.record for part in fitted),
        tensors=tensors,
        predictions={p.record.layer: p.predictions for p in fitted if p.predictions is not None},
        controls=controls,
        stages={"extract": extract_seconds, **{name: wall * s for name, s in spent.items()}},
    )


def _rooms(
    groups: Sequence[Sequence[str]],
    widths: Mapping[str, int],
    splits: Sequence[Tensor],
    dtype: torch.dtype,
    device: str,
) -> list[Tensor | None]:
    """Room for the features of each split, used again for one group after the other."""
    if device != "cpu":
        return [None for _ in splits]
    widest = max(sum(widths[layer] for layer in group) for group in groups)
    return [torch.empty(len(x) * widest, dtype=dtype) for x in splits]


def expected_cost(widths: Mapping[str, int], num_train: int) -> dict[str, float]:
    """Rough seconds for the probe of each layer on two cores, for estimates of the time left."""
    share = num_train / 60_000
    costs = {layer: 0.05 + (0.6 + 6e-3 * width) * share for layer, width in widths.items()}
    return {layer: cost / (1 + (widths[layer] <= NARROW)) for layer, cost in costs.items()}


def training_cost(widths: Mapping[str, int], num_train: int, protocol: SGDProtocol) -> float:
    """Rough seconds of training all probes at once on two cores, if none stops early."""
    epoch = sum(0.03 + 2.5e-4 * width for width in widths.values()) * num_train / 60_000
    return protocol.max_epochs * epoch
