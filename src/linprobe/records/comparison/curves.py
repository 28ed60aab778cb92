"""Error curves of runs: a curve is one run, or the mean of runs that differ in their seed alone."""

import math
from dataclasses import dataclass

from linprobe.records.schema import CheckpointRecord, ProbeRecord, RunRecord, Split
from linprobe.records.seeds import Spread, seed_words, spread


@dataclass(frozen=True)
class Point:
    """One layer of a curve.

    Attributes:
        error: rate of the split that is compared, over the seeds.
        probes: the layer's probe of each seed.
    """

    error: Spread
    probes: tuple[ProbeRecord, ...]

    @property
    def converged(self) -> bool:
        """True if every seed's probe is certified as it was asked for."""
        return all(probe.converged for probe in self.probes)

    @property
    def failed(self) -> bool:
        """True if a probe is neither certified nor as its training was meant to leave it."""
        return any(probe.standing == "failed" for probe in self.probes)

    @property
    def duality_gap(self) -> float:
        """The largest, nats."""
        gaps = [probe.duality_gap for probe in self.probes]
        return math.nan if any(map(math.isnan, gaps)) else max(gaps)

    @property
    def l2(self) -> float:
        """The geometric mean: it is chosen from a path of powers of ten."""
        penalties = [probe.l2 for probe in self.probes]
        if len(penalties) == 1 or not all(0 < l2 < math.inf for l2 in penalties):
            return penalties[0]
        return math.exp(sum(map(math.log, penalties)) / len(penalties))

    @property
    def train_cross_entropy(self) -> float:
        """The mean, nats."""
        return sum(probe.train_cross_entropy for probe in self.probes) / len(self.probes)


@dataclass(frozen=True)
class Curve:
    """One curve of the figure.

    Attributes:
        label: what tells it from the others.
        runs: one, or several that differ in their seed alone.
        split: "train" or "test".
    """

    label: str
    runs: tuple[RunRecord, ...]
    split: Split

    def names(self) -> list[str]:
        """Return the names of the checkpoints that all its runs have."""
        others = [{item.name for item in run.checkpoints} for run in self.runs[1:]]
        names = [item.name for item in self.runs[0].checkpoints]
        return [name for name in names if all(name in other for other in others)]

    def checkpoints(self, name: str) -> list[CheckpointRecord]:
        """Return the checkpoint of that name, of each run."""
        return [run.checkpoint(name) for run in self.runs]

    def points(self, checkpoint: str) -> dict[str, Point]:
        """Return the points of the layers that all runs have, by layer."""
        runs = [{p.layer: p for p in item.probes} for item in self.checkpoints(checkpoint)]
        return {
            layer: Point(
                spread([probes[layer].error_rate(self.split) for probes in runs]),
                tuple(probes[layer] for probes in runs),
            )
            for layer in runs[0]
            if all(layer in probes for probes in runs)
        }

    @property
    def long_label(self) -> str:
        """Its name, with what a mean is made of, and what part of it is certified."""
        label = self.label
        if len(self.runs) > 1:
            count, words = len(self.runs), seed_words(self.runs)
            seeds = label if words in label else f"{label}, {words}"
            label = f"{seeds}: mean of n = {count}, band from least to largest"
        probes = [p for run in self.runs for item in run.checkpoints for p in item.probes]
        sure = sum(probe.converged for probe in probes)
        return label if sure == len(probes) else f"{label} ({sure} of {len(probes)} certified)"


@dataclass(frozen=True)
class Panel:
    """All curves at one checkpoint.

    Attributes:
        name: of the checkpoint.
        step: training minibatches before it; None: the runs differ.
        layers: that all runs have, in the order of the first run.
        curves: points by layer, in the order of the comparison's curves.
        published: rates by layer of each reading; {}: none for this checkpoint.
    """

    name: str
    step: int | None
    layers: tuple[str, ...]
    curves: tuple[dict[str, Point], ...]
    published: dict[str, dict[str, float]]

    def rates(self, curve: int) -> dict[str, float]:
        """Return the error rates of a curve by layer."""
        points = self.curves[curve]
        return {layer: points[layer].error.mean for layer in self.layers}


def subtract(rates: dict[str, float], others: dict[str, float]) -> dict[str, float]:
    """Return the differences by layer, where both are known."""
    differences = {layer: rates[layer] - others[layer] for layer in rates if layer in others}
    return {layer: value for layer, value in differences.items() if math.isfinite(value)}
