"""``python -m benchmarks.exactness``: what the exact optimum costs beyond a gap of `tol`.

Fits the probe of each layer with `exact` off and on, one thread, and prints a row for both: passes
over the features, processor seconds (fit and test) and the test samples of which the certificate
can't tell whether the optimum classifies them correctly. Layers are those of Figures 5 and 8 on
MNIST; the networks are untrained unless ``--epochs`` or ``--minibatches`` say otherwise.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from linprobe.activations.extract import extract_features
from linprobe.core.features import DenseFeatures
from linprobe.experiments.figure5 import Figure5
from linprobe.experiments.figure8 import Figure8
from linprobe.experiments.samples import Samples, load_samples
from linprobe.experiments.settings import Settings
from linprobe.probes.base import FailedProbe, FittedProbe, Targets
from linprobe.probes.config import ProbeConfig
from linprobe.probes.softmax import SoftmaxProbe
from linprobe.runtime.randomness import generator

LAYERS = ("layer1", "layer24", "layer56", "layer110", "fc1_preact", "conv2_postpool")
_TABLE = "| layer | features | l2 | passes | exact | seconds | exact | ratio | undecided | exact |"


def networks(options: argparse.Namespace, samples: Samples) -> Iterator[tuple[Any, list[str]]]:
    """Yield each network that a layer is asked of, with those layers."""
    figure5 = Figure5(epochs=max(1, options.epochs))  # trains for its epochs, if at all
    for experiment, steps in (
        (Figure8(options.depth), options.minibatches),
        (figure5, options.epochs),
    ):
        network: Any = experiment.network(generator(0, "network"), quick=False)
        points = dict(network.probe_points)
        # Both have an input and logits: those of Figure 5 are meant.
        own = [
            layer
            for layer in options.layers.split(",")
            if layer in points and (experiment.name == "fig5" or layer.startswith("layer"))
        ]
        if own and steps:
            draws = generator(0, "training")
            trainer = experiment.trainer(network, samples.dataset, draws, quick=False)
            trainer.advance(steps, lambda done, total, loss: None)
        yield network.eval(), own


def fitted(features: Tensor, targets: Targets, test: tuple[Tensor, Tensor], *, exact: bool) -> Any:
    """Fit and test a probe: the probe, the processor seconds and the test error's range."""
    begun = time.process_time()
    config = ProbeConfig(exact=exact)
    found = SoftmaxProbe(config).fit(DenseFeatures(features), targets)
    if isinstance(found, FailedProbe):
        raise SystemExit(f"no probe: {found.reason}")
    probe: FittedProbe = found.tested(*test)
    return probe, time.process_time() - begun


def row(layer: str, features: Tensor, targets: Targets, test: tuple[Tensor, Tensor]) -> str:
    """Compare both fits of a layer."""
    loose, before = fitted(features, targets, test, exact=False)
    exact, after = fitted(features, targets, test, exact=True)
    return (
        f"| {layer} | {features.shape[1]:,} | {exact.l2:.0e} "
        f"| {loose.num_passes:.0f} | {exact.num_passes:.0f} "
        f"| {before:.1f} | {after:.1f} | {after / before:.2f} "
        f"| {loose.optimum_error.num_undecided:,} | {exact.optimum_error.num_undecided:,} |"
    )


def main(words: Sequence[str] | None = None) -> None:
    """Print a row for each layer."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", default=",".join(LAYERS))
    parser.add_argument("--depth", type=int, default=128, help="of Figure 8's network")
    parser.add_argument("--minibatches", type=int, default=0, help="that it is trained")
    parser.add_argument("--epochs", type=int, default=0, help="that Figure 5's is trained")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    samples = load_samples(Settings(Path("runs")))
    print(_TABLE + "\n" + "|---" * 10 + "|", flush=True)
    for network, layers in networks(options, samples):
        images = (samples.train_images, samples.dataset.test_images)
        for layer in layers:
            tap = network.probe_points[layer]
            train, test = (
                extract_features(network, network.preprocess(part), [tap])[tap].flatten(1)
                for part in images
            )
            labels = samples.dataset.test_labels
            print(row(layer, train, samples.targets, (test, labels)), flush=True)


if __name__ == "__main__":
    main()
