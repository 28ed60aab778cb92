"""``python -m benchmarks.scales``: what each way to scale features makes of massive activations.

Two classes and 64 features of deviation .01, of which one knows the class, beside columns that are
larger and know nothing; ``--networks`` also says which scale "auto" takes at the layers of Figures
5 and 8, where training takes some minutes.
"""

import argparse
from typing import Any

import torch
from torch import Tensor

import linprobe
from linprobe.activations.extract import extract_features
from linprobe.core.features import DenseFeatures, standardised
from linprobe.data import load
from linprobe.experiments.figure5 import Figure5
from linprobe.experiments.figure8 import Figure8
from linprobe.runtime.randomness import generator

_RATIOS = (1, 10, 30, 100, 1e3, 1e4, 1e6)
_ROWS = 4000
_TABLE = "| columns | times larger | scale | taken | test error | cross-entropy | l2 | at an end |"


def massive(num_rows: int, seed: int, ratio: float, large: int) -> tuple[Tensor, Tensor]:
    """Features (num_rows, 64 + large) and labels."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(num_rows) % 2
    x = 0.01 * torch.randn(num_rows, 64 + large, generator=draw)
    x[:, 0] += 0.02 * y
    x[:, 64:] *= ratio
    return x, y


def sweep() -> None:
    """Print a row for each ratio and scale."""
    print(_TABLE + "\n" + "|---" * 8 + "|")
    for large in (1, 3):
        for ratio in _RATIOS:
            (x, y), (xt, yt) = (massive(n, s, ratio, large) for s, n in enumerate((_ROWS, 2000)))
            for scale in ("layer", "feature", "auto"):
                method = linprobe.ProbeConfig(scale=scale)
                report = linprobe.fit_probes({"h": x}, y, ({"h": xt}, yt), method=method)
                p = report["h"].record
                print(
                    f"| {large} | {ratio:g} | {scale} | {p.scale} | {p.test_error_rate:.4f} "
                    f"| {p.test_cross_entropy:.4f} | {p.l2:.0e} | {p.l2_at_edge} |",
                    flush=True,
                )


def networks() -> None:
    """Print for each state of the figures' networks how many layers get which scale."""
    data = load("mnist")
    for experiment in (Figure5(), Figure8()):
        network: Any = experiment.network(generator(0, "network"), quick=False)
        trainer = experiment.trainer(network, data, generator(0, "training"), quick=False)
        before = 0
        for name, step in experiment.checkpoints(len(data.train_images), quick=False):
            if step:
                trainer.advance(step - before, lambda done, total, loss: None)
            before = step
            inputs = network.preprocess(data.train_images[:_ROWS])
            features = extract_features(network, inputs, list(network.probe_points.values()))
            kinds = [
                standardised(DenseFeatures(x, owned=True), "auto").standardisation.kind
                for x in features.values()
            ]
            count = {kind: kinds.count(kind) for kind in ("layer", "feature")}
            print(f"{experiment.name} {name}: {count}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", action="store_true", help="also the layers of the figures")
    chosen = parser.parse_args()
    sweep()
    if chosen.networks:
        networks()
