"""``python -m benchmarks.figure8_training``: which training makes the deep network of Figure 8.

The paper does not say how it trained the network. Each candidate is trained for 2,000 minibatches
and probed, at a few layers and on a part of the training images, after 0, 500 and 2,000 of them;
what is found is compared with the published bars. Candidates whose network has learned nothing
after 500 minibatches are not trained further. Results are kept in a JSON file, and what stands
there is not computed again.
"""

import argparse
import json
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from linprobe.activations.extract import extract_features
from linprobe.data import ImageDataset, load
from linprobe.experiments.networks import DeepMLP
from linprobe.experiments.training import MLPTrainer, MLPTraining, OptimizerName, network_error_rate
from linprobe.probes.base import FittedProbe
from linprobe.probes.config import ProbeConfig
from linprobe.probes.holdout import holdout_order
from linprobe.probes.softmax import fit_probe
from linprobe.records.published import load_published
from linprobe.runtime.files import atomic_write
from linprobe.runtime.randomness import generator

DEPTH = 128
STEPS = (0, 500, 2000)
BARS = (0, 1, 2, 4, 8, 12, 16, 24, 32, 48, 63, 64, 68, 72, 80, 88, 95, 100, 112, 120, 127, 128)
"""Places along the published figure: bar i is layer i + 1, and the last one the logits."""

_NUM_PROBED = 10_000
_PROBE = ProbeConfig(l2_path=(1e-3, 1e-5, 1e-7))
_LEARNED = 0.8
"""Train error after 500 minibatches above which a candidate is given up."""


@dataclass(frozen=True)
class Candidate:
    """One way to initialise and train the network.

    Attributes:
        optimizer: see `MLPTraining`.
        learning_rate: at the start.
        batch_size: samples a minibatch.
        decay: factor of the learning rate after each epoch.
        gain: factor of the Glorot-uniform weights; the square root of 2 makes them He's.
        slope: of the leaky ReLU.
        seed: of the network and of its minibatches.
    """

    optimizer: OptimizerName
    learning_rate: float
    batch_size: int = 512
    decay: float = 1.0
    gain: float = 1.0
    slope: float = 0.01
    seed: int = 0

    @property
    def key(self) -> str:
        """What tells this candidate from all others."""
        return " ".join(f"{name}={value}" for name, value in asdict(self).items())


def coarse() -> list[Candidate]:
    """One dimension after another, around settings that are known to train; the telling first."""
    found = [Candidate("adam", rate) for rate in (1e-4, 2e-4)]
    found += [Candidate("rmsprop", 1e-4), Candidate("sgd", 1e-2)]
    found += [Candidate("adam", 1e-4, slope=0.1), Candidate("adam", 1e-4, gain=2**0.5)]
    found += [Candidate("adam", 1e-4, 128), Candidate("adam", 2e-4, decay=0.95)]
    found += [Candidate("sgd", 1e-2, gain=2**0.5), Candidate("rmsprop", 3e-5)]
    found += [Candidate("adam", rate) for rate in (3e-5, 4e-4, 1e-3)]
    found += [Candidate("adam", 1e-4, slope=slope) for slope in (0.0, 0.3)]
    found += [Candidate("adam", 1e-4, gain=gain) for gain in (0.7, 1.2)]
    found += [Candidate("rmsprop", 3e-4), Candidate("sgd", 1e-1)]
    found += [Candidate("sgd", 1e-3, gain=2**0.5), Candidate("adam", 1e-4, 64)]
    found += [Candidate("adam", 1e-4, gain=gain, slope=0.1) for gain in (1.1, 1.2)]
    return [*found, Candidate("sgd", 1e-2, slope=0.1)]


def measure(candidate: Candidate, data: ImageDataset) -> dict[str, Any]:
    """Train and probe one candidate.

    Returns:
        Its settings; for each step the network's error rate on the probed training images, the
        loss (nats) and the train error rate of the probe at each of `BARS`.
    """
    started = time.perf_counter()
    network = DeepMLP(DEPTH, generator(candidate.seed, "network"), negative_slope=candidate.slope)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(candidate.gain)
    training = MLPTraining(
        candidate.optimizer,
        candidate.learning_rate,
        batch_size=candidate.batch_size,
        decay=candidate.decay,
    )
    trainer = MLPTrainer(
        network,
        data.train_images,
        data.train_labels,
        training,
        generator(candidate.seed, "training"),
    )
    found: dict[str, Any] = {"candidate": asdict(candidate), "steps": {}}
    for step in STEPS:
        trainer.advance(step - trainer.num_minibatches)
        rate = network_error_rate(
            network, data.train_images[:_NUM_PROBED], data.train_labels[:_NUM_PROBED]
        )
        found["steps"][str(step)] = {"network": rate, "probes": _probes(network, data)}
        if step and rate > _LEARNED:
            break
    return found | {"seconds": time.perf_counter() - started}


def _probes(network: DeepMLP, data: ImageDataset) -> list[float]:
    images, labels = data.train_images[:_NUM_PROBED], data.train_labels[:_NUM_PROBED]
    order = holdout_order(labels, _PROBE.validation_fraction, generator(0, "holdout"))
    points = list(network.probe_points.values())[1:]
    taps = [points[bar] for bar in BARS]
    features = extract_features(network, network.preprocess(images[order]), taps)
    rates = []
    for tap in taps:
        # The probe's test error is not looked at: a search must not choose by it.
        x, y = features.pop(tap), labels[order]
        fitted = fit_probe(x, y, x[:1], y[:1], _PROBE)
        assert isinstance(fitted, FittedProbe)
        rates.append(fitted.train_error_rate)
    return rates


def measure_all(candidates: Iterable[Candidate], path: Path, workers: int, dataset: str) -> None:
    """Measure what `path` does not hold yet, one thread each, and add it there as it is found."""
    found = read(path)
    left = [one for one in candidates if one.key not in found]
    with ProcessPoolExecutor(workers, initializer=_start, initargs=(dataset,)) as pool:
        running = {pool.submit(_measure, one): one for one in left}
        for done in as_completed(running):
            candidate, result = running[done], done.result()
            found[candidate.key] = result
            with atomic_write(path) as temporary:
                temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            rates = {step: values["network"] for step, values in result["steps"].items()}
            print(f"{candidate.key}: {rates}, {result['seconds']:.0f} s", flush=True)


def read(path: Path) -> dict[str, Any]:
    """What was measured before, by the candidates' keys."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


_data: ImageDataset  # of a worker process


def _start(dataset: str) -> None:
    global _data
    torch.set_num_threads(1)
    _data = load(dataset)


def _measure(candidate: Candidate) -> dict[str, Any]:
    return measure(candidate, _data)


def table(found: dict[str, Any], published: dict[str, Sequence[float]]) -> list[str]:
    """Markdown rows: error rates of the network, and mean distance of its probes to the bars.

    Args:
        found: as `read` gives it.
        published: bars by the number of minibatches.
    """
    head = ["optimiser", "rate", "batch", "decay", "gain", "slope", "seed"]
    columns = [*head, "network 500", "network 2,000"]
    columns += [f"{half} {step}" for step in STEPS for half in ("lower", "upper")]
    rows = [columns, ["---"] * len(columns)]
    for result in sorted(found.values(), key=lambda one: _upper_distance(one, published)):
        settings = result["candidate"]
        cells = [settings["optimizer"], f"{settings['learning_rate']:g}"]
        cells += [str(settings["batch_size"]), f"{settings['decay']:g}"]
        cells += [f"{settings['gain']:.3g}", f"{settings['slope']:g}", str(settings["seed"])]
        steps = result["steps"]
        cells += [_cell(steps[k]["network"] if k in steps else None) for k in ("500", "2000")]
        for step in map(str, STEPS):
            for upper in (False, True):
                known = steps.get(step)
                cells.append(
                    _cell(_distance(known["probes"], published[step], upper) if known else None)
                )
        rows.append(cells)
    return ["| " + " | ".join(cells) + " |" for cells in rows]


def _upper_distance(result: dict[str, Any], published: dict[str, Sequence[float]]) -> float:
    """Of the last panel; a candidate that was given up comes last."""
    last = result["steps"].get(str(STEPS[-1]))
    return _distance(last["probes"], published[str(STEPS[-1])], True) if last else float("inf")


def _distance(rates: Sequence[float], bars: Sequence[float], upper: bool) -> float:
    """Mean absolute difference over the probed bars of one half; the skip enters at bar 64."""
    half = [
        abs(rate - bars[bar])
        for bar, rate in zip(BARS, rates, strict=True)
        if (bar >= DEPTH // 2) == upper
    ]
    return sum(half) / len(half)


def _cell(rate: float | None) -> str:
    return "" if rate is None else f"{rate:.3f}".lstrip("0")


def main(arguments: list[str] | None = None) -> None:
    """Run the command; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.figure8_training",
        description="Search for the training behind the published Figure 8.",
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("docs/performance/figure8_training.json"))
    add("--workers", type=int, default=os.cpu_count() or 1, help="candidates at a time")
    add("--dataset", default="mnist", help="as linprobe takes it")
    add("--only", action="append", default=[], help="candidates whose name has this")
    add("--finalists", type=int, default=0, help="five seeds of so many of the best candidates")
    add("--table", action="store_true", help="measure nothing, print the table")
    options = parser.parse_args(arguments)
    bars = published_bars()
    if not options.table:
        candidates = [c for c in coarse() if all(word in c.key for word in options.only)]
        if options.finalists:
            candidates = finalists(read(options.out), bars, options.finalists)
        measure_all(candidates, options.out, options.workers, options.dataset)
    print("\n".join(table(read(options.out), bars)))


def finalists(
    found: dict[str, Any], published: dict[str, Sequence[float]], number: int
) -> list[Candidate]:
    """Five seeds of the candidates that come nearest to the upper half of the last panel."""
    first = [one for one in found.values() if one["candidate"]["seed"] == 0]
    best = sorted(first, key=lambda one: _upper_distance(one, published))[:number]
    return [Candidate(**{**one["candidate"], "seed": seed}) for one in best for seed in range(5)]


def published_bars() -> dict[str, Sequence[float]]:
    """Bars 0 to 128 of each panel, by the number of minibatches."""
    panels = load_published("fig8").rates
    return {str(step): list(panel["layer"].values()) for step, panel in panels.items()}


if __name__ == "__main__":
    main()
