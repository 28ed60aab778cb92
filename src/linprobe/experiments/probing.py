"""Probes of all probe points of one network state."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from linprobe.experiments.common import Samples, Settings
from linprobe.features import extract_features, feature_widths, plan_groups
from linprobe.networks import ConvNet, DeepMLP
from linprobe.predictions import Predictions
from linprobe.protocol import fit_probe
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
        extract_seconds: time spent on features.
        solve_seconds: time spent on probes.
        evaluate_seconds: time spent on what their test probabilities show.
    """

    records: tuple[ProbeRecord, ...]
    tensors: dict[str, Tensor]
    predictions: dict[str, Predictions]
    extract_seconds: float
    solve_seconds: float
    evaluate_seconds: float


def layer_widths(network: Network, samples: Samples, device: str) -> dict[str, int]:
    """Number of features of each probe point, in order."""
    example = network.preprocess(samples.train_images[:1]).to(device)
    points = network.probe_points
    widths = feature_widths(network, example, list(points.values()))
    return {layer: widths[tap] for layer, tap in points.items()}


def probe_layers(
    network: Network, samples: Samples, settings: Settings, watcher: LayerWatcher
) -> Probed:
    """Fit a probe at every probe point, holding a bounded amount of features at a time.

    Args:
        network: on ``settings.device``; left as it was.
        samples: what to probe on.
        settings: device, memory budget and protocol.
        watcher: progress.
    """
    data, points = samples.dataset, network.probe_points
    splits = [network.preprocess(x) for x in (samples.train_images, data.test_images)]
    labels = [y.to(settings.device) for y in (samples.train_labels, data.test_labels)]
    widths = layer_widths(network, samples, settings.device)
    index = {layer: i for i, layer in enumerate(points)}
    config = replace(settings.probe, seed=settings.seed)
    records: list[ProbeRecord] = []
    tensors: dict[str, Tensor] = {}
    predictions: dict[str, Predictions] = {}
    extract_seconds = evaluate_seconds = 0.0
    for group in plan_groups(widths, sum(map(len, splits)), settings.feature_bytes):
        watcher.extracting(group)
        started = time.perf_counter()
        train, test = (_features(network, x, group, settings.device) for x in splits)
        extract_seconds += time.perf_counter() - started
        for layer in group:
            tap = points[layer]
            # Popped, so that a layer's features are freed once its probe is done.
            fitted = fit_probe(
                train.pop(tap),
                labels[0],
                test.pop(tap),
                labels[1],
                config,
                num_classes=data.num_classes,
                on_event=watcher.solving(layer),
            )
            started = time.perf_counter()
            shown = evaluate_probe(fitted, *labels)
            evaluation = None
            if shown is not None:
                evaluation, predictions[layer] = shown
            evaluate_seconds += time.perf_counter() - started
            records.append(probe_record(layer, index[layer], fitted, len(labels[1]), evaluation))
            tensors[f"{layer}.weight"] = fitted.weight.cpu().contiguous()
            tensors[f"{layer}.bias"] = fitted.bias.cpu().contiguous()
            watcher.finished(records[-1])
    solve_seconds = sum(record.seconds for record in records)
    return Probed(
        *(tuple(records), tensors, predictions),
        *(extract_seconds, solve_seconds, evaluate_seconds),
    )


def _features(
    network: Network, inputs: Tensor, layers: tuple[str, ...], device: str
) -> dict[str, Tensor]:
    taps = [network.probe_points[layer] for layer in layers]
    return extract_features(network, inputs, taps, device=device)


def expected_cost(widths: Mapping[str, int], num_train: int) -> dict[str, float]:
    """Rough seconds for the probe of each layer on two cores, for estimates of the time left."""
    each = 4e-4 + 2e-3 * num_train / 60_000
    return {layer: 0.1 + each * width for layer, width in widths.items()}
