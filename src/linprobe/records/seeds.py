"""Runs that differ in nothing but their seed, side by side in one folder: OUT/seed0, OUT/seed1."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from linprobe.records.schema import RunRecord, Split
from linprobe.records.store import load_run, seed_folders
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.files import write_csv

SEEDS_CSV = "seeds.csv"
SPLITS: tuple[Split, ...] = ("test", "train")

_COLUMNS = (
    *("experiment", "protocol", "checkpoint", "step", "layer", "index", "split"),
    *("mean", "sd", "min", "max", "n", "num_converged", "seeds"),
)


@dataclass(frozen=True)
class Spread:
    """Error rates of one layer over seeds.

    Attributes:
        mean: their mean; NaN if one of them is.
        sd: standard deviation with n - 1; NaN for one seed.
        low: the least.
        high: the largest.
        n: how many seeds.
    """

    mean: float
    sd: float
    low: float
    high: float
    n: int


def spread(rates: Sequence[float]) -> Spread:
    """Return mean and spread of at least one rate."""
    if not all(map(math.isfinite, rates)):
        return Spread(*(math.nan,) * 4, n=len(rates))
    sd = statistics.stdev(rates) if len(rates) > 1 else math.nan
    return Spread(statistics.fmean(rates), sd, min(rates), max(rates), len(rates))


def load_seeds(folder: Path) -> tuple[RunRecord, ...]:
    """Load the complete runs in a folder of several seeds, by seed.

    Raises:
        LinprobeError: A run can't be read, none is complete, or they differ in more than the seed.
    """
    runs = [(path, load_run(path)) for path in seed_folders(folder)]
    complete = [(path, run) for path, run in runs if run.complete]
    if not complete:
        raise LinprobeError(
            f"{folder} holds no complete run of any seed; expected seed0/results.json and so on "
            "as `linprobe reproduce --seeds` writes them"
        )
    first_path, first = complete[0]
    known = _settings(first)
    for path, run in complete[1:]:
        other = _settings(run)
        differing = [key for key in (known | other) if known.get(key) != other.get(key)]
        if differing:
            raise LinprobeError(
                f"{path} and {first_path} differ in {', '.join(differing)}; expected runs that "
                "differ in their seed alone: move one of them elsewhere"
            )
    return tuple(run for _, run in complete)


def save_seeds(runs: Sequence[RunRecord], folder: Path) -> None:
    """Write seeds.csv: a row a checkpoint, layer and split, with mean and spread over the seeds."""
    write_csv(folder / SEEDS_CSV, _COLUMNS, _rows(runs))


def seed_words(runs: Sequence[RunRecord]) -> str:
    """Name the seeds: "seed 3", "seeds 0 to 4", "seeds 0, 2, 5"."""
    seeds = sorted(run.seed for run in runs)
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seeds {', '.join(map(str, seeds))}"


def _settings(run: RunRecord) -> dict[str, Any]:
    """Return what runs of several seeds have in common, by name."""
    config = asdict(replace(run.config, notes=(), fingerprint=None))  # which has the seed in it
    return {
        "experiment": run.experiment,
        "protocol": run.protocol,
        "quick": run.quick,
        "dataset": run.dataset.name,
        "num_train": run.dataset.num_train,
        "num_test": run.dataset.num_test,
        **dict(_leaves(config)),
        "checkpoints": [(item.name, item.step) for item in run.checkpoints],
        "layers": [[probe.layer for probe in item.probes] for item in run.checkpoints],
    }


def _leaves(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings of nested records with their paths, without seeds."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        elif key != "seed":
            yield f"{prefix}{key}", value


def _rows(runs: Sequence[RunRecord]) -> Iterator[list[object]]:
    seeds = " ".join(str(run.seed) for run in runs)
    for index, checkpoint in enumerate(runs[0].checkpoints):
        head = [runs[0].experiment, runs[0].protocol, checkpoint.name, checkpoint.step]
        for probes in zip(*(run.checkpoints[index].probes for run in runs), strict=True):
            for split in SPLITS:
                rates = spread([probe.error_rate(split) for probe in probes])
                numbers = (rates.mean, rates.sd, rates.low, rates.high)
                yield [
                    *(*head, probes[0].layer, probes[0].index, split),
                    *(number if math.isfinite(number) else None for number in numbers),
                    *(rates.n, sum(probe.converged for probe in probes), seeds),
                ]
