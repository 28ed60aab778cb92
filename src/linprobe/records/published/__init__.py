"""Numbers of the paper's Figures 5 and 8, as far as they are published, as package data."""

import json
from dataclasses import dataclass, fields
from importlib.resources import files
from typing import Any, Literal, get_args

from linprobe.records.schema import RunRecord, Split
from linprobe.runtime.errors import LinprobeError

Reading = Literal["layer", "input"]
READINGS: tuple[Reading, ...] = get_args(Reading)
"""Meanings that bar i of Figure 8 may have, whose axis doesn't say: hidden layer i+1, with the
logits as the last bar ("layer", which puts the skip connection where the bars fall), or the output
of layer i with the input as bar 0 ("input")."""


@dataclass(frozen=True)
class Published:
    """The published error rates of one figure.

    Attributes:
        experiment: "fig5" or "fig8".
        source: where they stand.
        quantity: what the source calls them.
        split: of the error rates, "train" or "test".
        dataset: that the network was trained on.
        precision: how far a rate can be off by being read or rounded.
        depth: hidden layers of the network; None: there is but one such network.
        rates: by training minibatches, by reading and by layer; fractions.
    """

    experiment: str
    source: str
    quantity: str
    split: Split
    dataset: str
    precision: float
    depth: int | None
    rates: dict[int, dict[str, dict[str, float]]]

    @property
    def readings(self) -> tuple[str, ...]:
        """The readings that there are: one where the source names its layers."""
        return tuple(next(iter(self.rates.values())))

    def check(self, run: RunRecord) -> None:
        """Make sure that a run can be compared with these numbers.

        Raises:
            LinprobeError: It is of another experiment, data set or depth.
        """
        depth = run.config.experiment.depth
        if self.depth is not None and depth != self.depth:
            raise LinprobeError(
                f"the published numbers are of the network of {self.depth} layers, but a run has "
                f"{depth}; leave `published` out, or use a run of depth {self.depth}"
            )
        if run.dataset.name != self.dataset:
            raise LinprobeError(
                f"the published numbers are of {self.dataset}, but a run is of "
                f"{run.dataset.name}; leave `published` out"
            )


def load_published(experiment: str) -> Published:
    """Load the published numbers of an experiment, or raise `LinprobeError`: there are none."""
    if experiment not in ("fig5", "fig8"):
        raise LinprobeError(
            f"there are no published numbers of {experiment!r}; expected runs of fig5 or fig8"
        )
    file = files("linprobe.records.published") / f"{experiment}.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    named = {int(step): {"layer": rates} for step, rates in content.get("values", {}).items()}
    read = {int(step): _read(bars) for step, bars in content.get("bars", {}).items()}
    known: dict[str, Any] = {item.name: content.get(item.name) for item in fields(Published)}
    return Published(**{**known, "rates": named | read})


def _read(bars: list[float]) -> dict[str, dict[str, float]]:
    """Return the bars by layer, in both readings."""
    depth = len(bars) - 1
    hidden = [f"layer{number}" for number in range(1, depth + 1)]
    return {
        "layer": dict(zip([*hidden, "logits"], bars, strict=True)),
        "input": dict(zip(["input", *hidden], bars, strict=True)),
    }
