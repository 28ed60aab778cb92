"""``python -m benchmarks.figure8_training``: which training makes the deep network of Figure 8.

The paper does not say how it trained the network. Each candidate is trained for 2,000 minibatches
and probed, at a few layers and on a part of the training images, after 0, 500 and 2,000 of them;
what is found is compared with the published bars. Candidates whose network has learned nothing
after 500 minibatches are not trained further. With ``--probes`` further probes are trained by
minibatches, as the published ones may have been. Results are kept in a JSON file, and what stands
there is not computed again.
"""

import argparse
import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.figure8_candidates import DEPTH, Candidate, coarse, further, train
from benchmarks.figure8_table import (
    BARS,
    STEPS,
    Bars,
    distance_to,
    probe_table,
    published_bars,
    shift_table,
    table,
)
from benchmarks.minibatch_probes import NUM_PROBED, MinibatchProbes
from linprobe.activations.extract import extract_features
from linprobe.data import ImageDataset, load
from linprobe.experiments.networks import DeepMLP
from linprobe.experiments.training import network_error_rate
from linprobe.probes.base import FittedProbe
from linprobe.probes.config import ProbeConfig
from linprobe.probes.holdout import holdout_order
from linprobe.probes.softmax import fit_probe
from linprobe.runtime.files import atomic_write
from linprobe.runtime.randomness import generator

_PROBE = ProbeConfig(l2_path=(1e-3, 1e-5, 1e-7))
_LEARNED = 0.8
"""Train error after 500 minibatches above which a candidate is given up."""


@dataclass(frozen=True)
class Extent:
    """How much of a candidate is measured.

    Attributes:
        until: minibatches; of `STEPS` those up to it.
        probes: train probes by minibatches too.
    """

    until: int = STEPS[-1]
    probes: bool = False

    def is_met(self, result: Mapping[str, Any] | None) -> bool:
        """Tell whether a result holds so much, or was given up."""
        if result is None or (self.probes and "trained" not in result):
            return False
        steps = result["steps"]
        last = max(steps, key=int)
        given_up = int(last) > 0 and steps[last]["network"] > _LEARNED
        return given_up or int(last) >= self.until


def measure(candidate: Candidate, data: ImageDataset, extent: Extent) -> dict[str, Any]:
    """Train and probe one candidate.

    Args:
        candidate: the network and its training.
        data: training images.
        extent: how much.

    Returns:
        Its settings; for each step the network's error rate on the probed training images and the
        train error rate of the certified probe at each of `BARS`; and, as `trained`, those
        of probes trained by minibatches, see `MinibatchProbes`.
    """
    started = time.perf_counter()
    network = candidate.network(DEPTH)
    trained = None
    if extent.probes:
        trained = MinibatchProbes(network, data, _taps(network), candidate.batch_size)
    steps = train(network, candidate, data, trained.seen if trained else None)
    found: dict[str, Any] = {"candidate": asdict(candidate), "bars": BARS, "steps": {}}
    done = 0
    for step in [step for step in STEPS if step <= extent.until]:
        while done < step:
            done = next(steps)
        rate = network_error_rate(
            network, data.train_images[:NUM_PROBED], data.train_labels[:NUM_PROBED]
        )
        found["steps"][str(step)] = {"network": rate, "probes": _probes(network, data)}
        if trained:
            trained.measure(step)
        if step and rate > _LEARNED:
            break
    if trained:
        found["trained"] = trained.close()
    return found | {"seconds": time.perf_counter() - started}


def _probes(network: DeepMLP, data: ImageDataset) -> list[float]:
    images, labels = data.train_images[:NUM_PROBED], data.train_labels[:NUM_PROBED]
    order = holdout_order(labels, _PROBE.validation_fraction, generator(0, "holdout"))
    taps = _taps(network)
    features = extract_features(network, network.preprocess(images[order]), taps)
    rates = []
    for tap in taps:
        # The probe's test error is not looked at: a search must not choose by it.
        x, y = features.pop(tap), labels[order]
        fitted = fit_probe(x, y, x[:1], y[:1], _PROBE)
        assert isinstance(fitted, FittedProbe)
        rates.append(fitted.train_error_rate)
    return rates


def _taps(network: DeepMLP) -> list[str]:
    points = list(network.probe_points.values())[1:]
    return [points[bar] for bar in BARS]


def measure_all(
    candidates: Iterable[Candidate], extent: Extent, path: Path, workers: int, dataset: str
) -> None:
    """Measure what `path` does not hold yet, one thread each, and add it there as it is found."""
    found = read(path)
    left = [one for one in candidates if not extent.is_met(found.get(one.key))]
    with ProcessPoolExecutor(workers, initializer=_start, initargs=(dataset,)) as pool:
        running = {pool.submit(_measure, one, extent): one for one in left}
        for done in as_completed(running):
            candidate, result = running[done], done.result()
            found[candidate.key] = found.get(candidate.key, {}) | result
            with atomic_write(path) as temporary:
                temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            rates = {step: values["network"] for step, values in result["steps"].items()}
            print(f"{candidate.label}: {rates}, {result['seconds']:.0f} s", flush=True)


def read(path: Path) -> dict[str, Any]:
    """What was measured before, by the candidates' keys."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {Candidate(**result["candidate"]).key: result for result in found.values()}


_data: ImageDataset  # of a worker process


def _start(dataset: str) -> None:
    global _data
    torch.set_num_threads(1)
    _data = load(dataset)


def _measure(candidate: Candidate, extent: Extent) -> dict[str, Any]:
    return measure(candidate, _data, extent)


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
    add("--only", action="append", default=[], help="networks whose line has this")
    add("--until", type=int, default=STEPS[-1], choices=STEPS, help="minibatches of training")
    add("--probes", action="store_true", help="also probes trained by minibatches")
    add("--finalists", type=int, default=0, help="five seeds of so many of the best candidates")
    add("--table", action="store_true", help="measure nothing, print the tables")
    options = parser.parse_args(arguments)
    bars = published_bars()

    def chosen(candidate: Candidate) -> bool:
        return all(re.search(word, candidate.label) for word in options.only)

    if not options.table:
        candidates = [one for one in [*coarse(), *further()] if chosen(one)]
        if options.finalists:
            candidates = finalists(read(options.out), bars, options.finalists)
        extent = Extent(options.until, options.probes)
        measure_all(candidates, extent, options.out, options.workers, options.dataset)
    found = read(options.out)
    print("\n".join([*shift_table(bars), "", *table(found, bars)]))
    for result in found.values() if options.only else ():
        candidate = Candidate(**result["candidate"])
        if chosen(candidate):
            print("\n".join(["", candidate.label, "", *probe_table(result, bars)]))


def finalists(found: Mapping[str, Any], published: Bars, number: int) -> list[Candidate]:
    """Five seeds of the candidates that come nearest to the trained panels."""
    first = [one for one in found.values() if one["candidate"]["seed"] == 0]
    best = sorted(first, key=lambda one: distance_to(one, published))[:number]
    return [Candidate(**{**one["candidate"], "seed": seed}) for one in best for seed in range(5)]


if __name__ == "__main__":
    main()
