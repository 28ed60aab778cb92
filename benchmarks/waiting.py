"""Measure how threads should wait, alone and beside other work: ``python -m benchmarks.waiting``.

A step of the training of Figure 8's network, and a probe of 10 classes, each in a process of its
own: with OpenMP's default, and with threads that spin so many times before they sleep
(``GOMP_SPINCOUNT``; 0 is ``OMP_WAIT_POLICY=passive``), beside no, one and two loops that keep a
core busy each.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import torch

from linprobe.experiments.figure8 import Figure8
from linprobe.experiments.mlp_training import MLPTrainer
from linprobe.experiments.networks import DeepMLP
from linprobe.probes.softmax import fit_probe
from linprobe.runtime.waiting import NAMES, let_threads_rest

_BATCHES = 30
_ROWS, _FEATURES, _CLASSES = 20_000, 128, 10
_MOST = 120.0  # seconds

HEADER = ("threads wait", "busy loops", "training step", "probe")


def main() -> None:
    """Print a line for each way to wait and number of busy loops."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--spins", default="0,500,1000,2000,4000", help="values of GOMP_SPINCOUNT")
    parser.add_argument("--loops", default="0,1,2", help="numbers of busy loops")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(f"{1e3 * _training_step():.0f} ms | {_probe():.2f} s", flush=True)
        return
    ours: dict[str, str] = {}
    let_threads_rest(ours)
    ways: dict[str, dict[str, str]] = {"by default": {}, "as the command line": ours}
    ways |= {f"{spins} spins": {"GOMP_SPINCOUNT": spins} for spins in options.spins.split(",")}
    print(" | ".join(HEADER))
    for loops in map(int, options.loops.split(",")):
        for way, settings in ways.items():
            with _busy(loops):
                print(f"{way} | {loops} | {_measured(settings)}", flush=True)


def _measured(settings: dict[str, str]) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in NAMES}
    words = [sys.executable, "-m", "benchmarks.waiting", "--worker"]
    try:
        done = subprocess.run(
            words, env=kept | settings, stdout=subprocess.PIPE, text=True, check=True, timeout=_MOST
        )
    except subprocess.TimeoutExpired:
        return f"over {_MOST:.0f} s in all"
    return done.stdout.strip()


@contextlib.contextmanager
def _busy(loops: int) -> Iterator[None]:
    words = [sys.executable, "-c", "while True: pass"]
    started = [subprocess.Popen(words) for _ in range(loops)]
    try:
        yield
    finally:
        for one in started:
            one.kill()
            one.wait()


def _training_step() -> float:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (4096, 28, 28), generator=draw, dtype=torch.uint8)
    labels = torch.randint(_CLASSES, (4096,), generator=draw)
    figure = Figure8()
    network = figure.network(draw, quick=False)
    assert isinstance(network, DeepMLP)
    trainer = MLPTrainer(network, images, labels, figure.training(), draw)
    trainer.advance(2)
    begun = time.perf_counter()
    trainer.advance(_BATCHES)
    return (time.perf_counter() - begun) / _BATCHES


def _probe() -> float:
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(_CLASSES, (_ROWS,), generator=draw)
    means = 0.5 * torch.randn(_CLASSES, _FEATURES, generator=draw)
    features = torch.randn(_ROWS, _FEATURES, generator=draw) + means[labels]
    seconds = []
    for _ in range(3):  # the first one loads libraries
        begun = time.perf_counter()
        fit_probe(features, labels, features[:100], labels[:100])
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


if __name__ == "__main__":
    main()
