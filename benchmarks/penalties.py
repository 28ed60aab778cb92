"""``python -m benchmarks.penalties``: what is gained where the path of penalties goes on.

Probes layers of a network, untrained or trained for some minibatches, twice: by the nine penalties
of the default path alone, and by the path that goes on beyond its ends while the held-out
cross-entropy falls by more than a number of standard errors.
"""

import argparse
from collections.abc import Iterator, Sequence

import torch

from linprobe.activations.extract import extract_features
from linprobe.data import load
from linprobe.experiments.mlp_training import MLPTrainer, MLPTraining
from linprobe.experiments.networks import ConvNet, DeepMLP
from linprobe.probes import path
from linprobe.probes.base import FittedProbe
from linprobe.probes.config import ProbeConfig
from linprobe.probes.holdout import holdout_order
from linprobe.probes.softmax import fit_probe
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.randomness import generator

Data = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""Features and labels, of the training rows and of the test rows."""

_NETWORKS = ("deep", "conv")
_LAYERS = "layer8,layer20,layer45,layer64,layer100"
_COLUMNS = (
    "| layer | path | l2 | held-out cross-entropy | test error | at an end | passes | seconds |"
)


def compare(data: Data, errors: Sequence[float]) -> Iterator[tuple[str, FittedProbe]]:
    """Fit by the fixed path, then by the path that goes on, for each number of standard errors."""
    yield "fixed", _fitted(data, extend=False)
    usual = path.NUM_ERRORS
    try:
        for number in errors:
            path.NUM_ERRORS = number
            yield f"{number:g} standard errors", _fitted(data, extend=True)
    finally:
        path.NUM_ERRORS = usual


def _fitted(data: Data, *, extend: bool) -> FittedProbe:
    fitted = fit_probe(*data, ProbeConfig(extend=extend))
    if not isinstance(fitted, FittedProbe):
        raise LinprobeError(f"no probe was fitted: {fitted.reason}")
    return fitted


def row(layer: str, name: str, fitted: FittedProbe) -> str:
    """Write a row of the table."""
    cells = [layer, name, f"{fitted.l2:.0e}", f"{fitted.validation_cross_entropy:.4f}"]
    cells += [f"{fitted.test_error_rate:.4f}", "yes" if fitted.l2_at_edge else "no"]
    cells += [f"{fitted.num_passes:.0f}", f"{fitted.seconds:.1f}"]
    return "| " + " | ".join(cells) + " |"


def points(fitted: FittedProbe) -> Iterator[str]:
    """Write the penalties that were tried, a line each."""
    for point in fitted.path:
        yield (
            f"  {point.l2:.0e} {point.validation_cross_entropy:.5f} +- {point.standard_error:.1e} "
            f"{point.status}"
        )


def main(arguments: list[str] | None = None) -> None:
    """Run the command; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.penalties",
        description="Compare the fixed path of penalties with one that goes on where it helps.",
    )
    add = parser.add_argument
    add("--network", choices=_NETWORKS, default="deep", help="of Figure 8, or of Figure 5")
    add("--layers", default=_LAYERS, help="their names, comma-separated")
    add("--minibatches", type=int, default=0, help="that the deep network is trained for")
    add("--dataset", default="mnist", help="as linprobe takes it")
    add("--float64", action="store_true", help="activations of a forward pass in float64")
    add("--errors", default="2", help="numbers of standard errors, comma-separated")
    add("--path", action="store_true", help="also each penalty that was tried")
    options = parser.parse_args(arguments)
    draw = generator(0, "network")
    network = DeepMLP(128, draw) if options.network == "deep" else ConvNet("paper", draw)
    data = load(options.dataset)
    if options.minibatches and isinstance(network, DeepMLP):
        draw = generator(0, "training")
        trainer = MLPTrainer(network, data.train_images, data.train_labels, MLPTraining(), draw)
        trainer.advance(options.minibatches)
    dtype = torch.float64 if options.float64 else torch.float32
    network.to(dtype)
    order = holdout_order(data.train_labels, 1 / 6, generator(0, "holdout"))
    labels, test_labels = data.train_labels[order], data.test_labels
    errors = [float(number) for number in options.errors.split(",")]
    print(_COLUMNS + "\n" + "|---" * 8 + "|")
    for layer in options.layers.split(","):
        tap = network.probe_points[layer]
        train, test = (
            extract_features(network, network.preprocess(images).to(dtype), [tap])[tap].flatten(1)
            for images in (data.train_images[order], data.test_images)
        )
        for name, fitted in compare((train, labels, test, test_labels), errors):
            print(row(layer, name, fitted), flush=True)
            for line in points(fitted) if options.path else ():
                print(line, flush=True)


if __name__ == "__main__":
    main()
