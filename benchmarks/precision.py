"""``python -m benchmarks.precision``: are probes of float32 activations those of float64 ones?

The deep network of Figure 8 shrinks its features by ten orders of magnitude, and once it is
trained they may vary by less than float32 can tell from their mean. A network's state is probed
twice, on activations of a forward pass in float32 and in float64. Both problems are solved in
float64 for each penalty of the path; what differs is the activations' rounding alone.

``--probes`` compares linprobe's own probes instead, each at the penalty that it chooses, and shows
what `linprobe.core.rounding` says of the one that reads float32.
"""

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

import linprobe
from linprobe.activations.extract import extract_features
from linprobe.core.certificate import certify
from linprobe.core.features import DenseFeatures, Standardisation, standardised
from linprobe.core.problem import SoftmaxRegression
from linprobe.core.rounding import rounding_cost
from linprobe.core.solvers.base import Point
from linprobe.core.solvers.newton import SubsampledNewton
from linprobe.data import ImageDataset, load
from linprobe.experiments.figure8 import Figure8
from linprobe.experiments.networks import DeepMLP
from linprobe.probes.config import DEFAULT_L2_PATH, ProbeConfig
from linprobe.probes.holdout import holdout_order
from linprobe.runtime.randomness import generator

DEPTH = 128
LAYERS = (1, 8, 16, 32, 48, 56, 64, 65, 80, 96, 128)
_TOL = 1e-4
_MAX_PASSES = 200.0


@dataclass(frozen=True)
class Splits:
    """Activations of one layer in one precision, standardised; float64.

    Attributes:
        train: (n_train, n_features).
        test: (n_test, n_features).
    """

    train: Tensor
    test: Tensor

    @classmethod
    def of(cls, train: Tensor, test: Tensor) -> "Splits":
        """Standardise raw activations by their training rows."""
        train, test = train.double(), test.double()
        standardisation = Standardisation.fit_(train)
        return cls(train, (test - standardisation.mean) * standardisation.scale)


@dataclass(frozen=True)
class Difference:
    """What rounding the activations changed at one penalty.

    Attributes:
        gap64: certified gap (nats), on the float64 activations, of the optimum of the others.
        error32: test error rate of the probe of float32 activations.
        error64: of the probe of float64 activations.
        disagree: share of the test samples that the two probes put in different classes.
    """

    l2: float
    gap64: float
    error32: float
    error64: float
    disagree: float


def differences(
    single: Splits, double: Splits, labels: Tensor, test_labels: Tensor, l2_path: Sequence[float]
) -> Iterator[Difference]:
    """Solve the path on both activations and compare the optima penalty by penalty."""
    solvers = [SubsampledNewton(SoftmaxRegression(x.train, labels, 10)) for x in (single, double)]
    starts: list[tuple[Point, ...]] = [(), ()]
    for l2 in l2_path:
        for i, solver in enumerate(solvers):
            found = solver.solve(l2, tol=_TOL, max_passes=_MAX_PASSES, starts=starts[i])
            starts[i] = (found.point, *starts[i][:1])
        one, other = starts[0][0], starts[1][0]
        predicted = [
            (x.test @ p.weight.T + p.bias).argmax(1) for x, p in ((single, one), (double, other))
        ]
        errors = [float((y != test_labels).double().mean()) for y in predicted]
        gap = certify(double.train, labels, one.weight, one.bias, l2).duality_gap
        moved = float((predicted[0] != predicted[1]).double().mean())
        yield Difference(l2, gap, errors[0], errors[1], moved)


def activations(
    network: DeepMLP, images: Tensor, dtype: torch.dtype, taps: Sequence[str]
) -> dict[str, Tensor]:
    """Raw activations of a forward pass in `dtype`."""
    probed = network if dtype == torch.float32 else deepcopy(network).to(dtype)
    return extract_features(probed, network.preprocess(images).to(dtype), taps)


def rounding(single: Tensor, double: Tensor) -> float:
    """Root mean square of the activations' rounding over that of what varies in them."""
    varies = double - double.mean(0)
    return float((single.double() - double).norm() / varies.norm())


@dataclass(frozen=True)
class Pair:
    """linprobe's probes of one layer, of float32 and of float64 activations.

    Attributes:
        share: what linprobe takes for rounding, of what varies in float32.
        cost: what that costs the first probe, nats.
        moved: share of the test samples that the two probes put in different classes.
        seconds: of reading the layer and fitting it.
    """

    share: float
    cost: float
    rounded: bool
    l2: tuple[float, float]
    error: tuple[float, float]
    cross_entropy: tuple[float, float]
    moved: float
    seconds: tuple[float, float]


def pair(network: DeepMLP, data: ImageDataset, tap: str) -> Pair:
    """Fit both probes of a layer."""
    train, test = (network.preprocess(x) for x in (data.train_images, data.test_images))
    splits = (train, data.train_labels), (test, data.test_labels)
    found, seconds = list[linprobe.Probe](), list[float]()
    for float64 in (False, True):
        extraction, begun = linprobe.ExtractionOptions(float64=float64), time.perf_counter()
        method = ProbeConfig(exact=False)
        report = linprobe.probe(network, *splits, layers=tap, method=method, extraction=extraction)
        found.append(report[tap])
        seconds.append(time.perf_counter() - begun)
    own, records = found[0], [one.record for one in found]
    raw = extract_features(network, train, [tap])[tap]
    assert own.weight is not None and own.bias is not None and own.scale is not None
    logits = own.weight @ raw.double().T + own.bias[:, None]
    point = Point(own.weight / own.scale, torch.zeros_like(own.bias), logits)
    features = standardised(DenseFeatures(raw))
    first, second = (one.predictions.predicted for one in found if one.predictions is not None)
    return Pair(
        *(features.rounding, rounding_cost(features, point), records[0].rounded),
        (records[0].l2, records[1].l2),
        (records[0].test_error_rate, records[1].test_error_rate),
        (records[0].test_cross_entropy, records[1].test_cross_entropy),
        float((first != second).double().mean()),
        (seconds[0], seconds[1]),
    )


def print_pairs(network: DeepMLP, data: ImageDataset, taps: Sequence[str]) -> None:
    """Print a row for each layer."""
    twice = "| float64 "
    print(
        f"| layer | rounding | cost | rounded | l2 {twice}| error {twice}"
        f"| cross-entropy {twice}| differ | seconds {twice}|"
    )
    print("|---" * 13 + "|", flush=True)
    for tap in taps:
        one = pair(network, data, tap)
        cells = [tap, f"{one.share:.0e}", f"{one.cost:.1e}", "yes" if one.rounded else "no"]
        cells += [f"{l2:.0e}" for l2 in one.l2]
        cells += [f"{x:.4f}".lstrip("0") for x in (*one.error, *one.cross_entropy, one.moved)]
        cells += [f"{x:.0f}" for x in one.seconds]
        print("| " + " | ".join(cells) + " |", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the command; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.precision",
        description="Compare probes of float32 activations with those of float64 ones.",
    )
    add = parser.add_argument
    add("--network", type=Path, help="networks/CHECKPOINT.safetensors; default: untrained")
    add("--minibatches", type=int, default=0, help="that the untrained network is trained")
    add("--layers", type=lambda text: tuple(map(int, text.split(","))), default=LAYERS)
    add("--probes", action="store_true", help="compare linprobe's own probes of all samples")
    add("--dataset", default="mnist", help="as linprobe takes it")
    add("--rows", type=int, default=20_000, help="training samples")
    add("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    network = DeepMLP(DEPTH, generator(0, "network"))
    if options.network is not None:
        network.load_state_dict(load_file(options.network))
    data = load(options.dataset)
    order = holdout_order(data.train_labels, 1 / 6, generator(0, "holdout"))[: options.rows]
    if options.minibatches:
        draws = generator(0, "training")
        trainer = Figure8(DEPTH).trainer(network, data, draws, quick=False)
        trainer.advance(options.minibatches, lambda done, total, loss: None)
    taps = [f"layer{i}" for i in options.layers]
    if options.probes:
        return print_pairs(network.eval(), data, taps)
    splits = (data.train_images[order], data.test_images)
    single, double = (
        [activations(network, images, dtype, taps) for images in splits]
        for dtype in (torch.float32, torch.float64)
    )
    print("| layer | rounding | l2 | gap in float64 | error float32 | error float64 | differ |")
    print("|---|---|---|---|---|---|---|")
    for tap in taps:
        ratio = rounding(single[0][tap], double[0][tap])
        pair = (
            Splits.of(single[0][tap], single[1][tap]),
            Splits.of(double[0][tap], double[1][tap]),
        )
        found = differences(*pair, data.train_labels[order], data.test_labels, DEFAULT_L2_PATH)
        for one in found:
            cells = [tap, f"{ratio:.0e}", f"{one.l2:.0e}", f"{one.gap64:.0e}"]
            cells += [f"{x:.4f}".lstrip("0") for x in (one.error32, one.error64, one.disagree)]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
