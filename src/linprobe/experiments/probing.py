"""Probes of all probe points of one network state."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from linprobe.controls import Controls, Task
from linprobe.evidence import ControlRecord
from linprobe.experiments.common import Samples, Settings
from linprobe.extras import Extras
from linprobe.features import extract_features, feature_widths, plan_groups
from linprobe.networks import ConvNet, DeepMLP
from linprobe.predictions import Predictions
from linprobe.protocol import ProbeConfig, fit_probe
from linprobe.recording import evaluate_probe, probe_record
from linprobe.results import ProbeRecord

Network = ConvNet | DeepMLP
OnSolve = Callable[[str, float, float, float], None]


@dataclass(frozen=True)
class LayerWatcher:
    """Who is told how probing goes on; every method of it is called with the layer's name.

    Attributes:
        extracting: called with the names of layers whose features are being computed.
        solving: gives the receiver of a layer's solver events, as `fit_probe` takes it.
        finished: called with each record.
    """

    extracting: Callable[[tuple[str, ...]], None]
    solving: Callable[[str], OnSolve]
    finished: Callable[[ProbeRecord], None]


@dataclass(frozen=True)
class Probed:
    """Probes of one network state.

    Attributes:
        records: in the order of the probe points.
        tensors: ``LAYER.weight`` (n_classes, n_features) and ``LAYER.bias`` (n_classes,),
            float64 on raw features, on the CPU.
        predictions: of each layer whose features are finite.
        controls: those of layers.
        stages: seconds of "extract", "solve" and "evaluate", and of "controls" if any.
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
    fitting = _Fitting(
        *(labels[0], labels[1], data.num_classes),
        *(replace(settings.probe, seed=settings.seed), extras or Extras(), watcher),
    )
    extract_seconds = 0.0
    for group in plan_groups(widths, sum(map(len, splits)), settings.feature_bytes):
        watcher.extracting(group)
        started = time.perf_counter()
        train, test = (_features(network, x, group, settings.device) for x in splits)
        extract_seconds += time.perf_counter() - started
        for layer in group:
            tap = points[layer]
            # Popped, so that a layer's features are freed once its probe is done.
            fitting.fit(layer, train.pop(tap), test.pop(tap))
    return fitting.probed(extract_seconds)


class _Fitting:
    """Fits layer after layer and gathers what was found."""

    def __init__(
        self,
        train_labels: Tensor,
        test_labels: Tensor,
        num_classes: int,
        config: ProbeConfig,
        extras: Extras,
        watcher: LayerWatcher,
    ) -> None:
        self.labels, self.num_classes = (train_labels, test_labels), num_classes
        self.config, self.extras, self.watcher = config, extras, watcher
        self.records: list[ProbeRecord] = []
        self.controls: list[ControlRecord] = []
        self.tensors: dict[str, Tensor] = {}
        self.predictions: dict[str, Predictions] = {}
        self.evaluate_seconds = self.extras_seconds = 0.0

    def fit(self, layer: str, train: Tensor, test: Tensor) -> None:
        """Fit a layer's probe, and what else is asked for, to features that are overwritten."""
        labels, on_event = self.labels, self.watcher.solving(layer)
        fitted = fit_probe(
            *(train, labels[0], test, labels[1], self.config),
            num_classes=self.num_classes,
            on_event=on_event,
        )
        started = time.perf_counter()
        shown = evaluate_probe(fitted, *labels)
        evaluation = None
        if shown is not None:
            evaluation, self.predictions[layer] = shown
        evaluated = time.perf_counter()
        self.evaluate_seconds += evaluated - started
        evaluation, controls = self.extras.of_layer(
            *(layer, fitted, evaluation, (train, labels[0]), test, self.config, on_event)
        )
        self.extras_seconds += time.perf_counter() - evaluated
        self.controls.extend(controls)
        index = len(self.records)
        self.records.append(probe_record(layer, index, fitted, len(labels[1]), evaluation))
        self.tensors[f"{layer}.weight"] = fitted.weight.cpu().contiguous()
        self.tensors[f"{layer}.bias"] = fitted.bias.cpu().contiguous()
        self.watcher.finished(self.records[-1])

    def probed(self, extract_seconds: float) -> Probed:
        """What was gathered; all layers are done."""
        stages = {
            "extract": extract_seconds,
            "solve": sum(record.seconds for record in self.records),
            "evaluate": self.evaluate_seconds,
        }
        if self.extras.relative_cost:
            stages["controls"] = self.extras_seconds
        records, controls = tuple(self.records), tuple(self.controls)
        return Probed(records, self.tensors, self.predictions, controls, stages)


def _features(
    network: Network, inputs: Tensor, layers: tuple[str, ...], device: str
) -> dict[str, Tensor]:
    taps = [network.probe_points[layer] for layer in layers]
    return extract_features(network, inputs, taps, device=device)


def expected_cost(widths: Mapping[str, int], num_train: int) -> dict[str, float]:
    """Rough seconds for the probe of each layer on two cores, for estimates of the time left."""
    each = 4e-4 + 2e-3 * num_train / 60_000
    return {layer: 0.1 + each * width for layer, width in widths.items()}
