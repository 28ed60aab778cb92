"""What tables and plots are made of: numbers drawn from the JSON of a run, and no others."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.jobs import OURS, SKLEARN
from benchmarks.machine import pass_seconds

Measured = dict[str, Any]
Record = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """Layer and sizes that solvers are compared on."""

    layer: str
    num_rows: int
    num_features: int
    num_classes: int
    l2s: tuple[float, ...]

    @classmethod
    def of(cls, record: Record) -> "Problem":
        """The problem of a record's job."""
        job = record["job"]
        sizes = (job["num_rows"], job["num_features"], job["num_classes"])
        return cls(job["layer"], *sizes, tuple(job["l2s"]))


def of_suite(measured: Measured, suite: str, device: str = "cpu") -> list[Record]:
    """Records of a suite, by rising number of features, rows, classes and path length."""
    found = [
        record
        for record in measured["results"].values()
        if record["job"]["suite"] == suite and record["job"]["device"] == device
    ]
    return sorted(found, key=lambda record: _order(Problem.of(record)))


def _order(problem: Problem) -> tuple[int, int, int, int]:
    sizes = (problem.num_features, problem.num_rows, problem.num_classes)
    return (*sizes, len(problem.l2s))


def by_problem(records: Iterable[Record]) -> dict[Problem, dict[str, Record]]:
    """Problem to competitor to record, in the order given."""
    table: dict[Problem, dict[str, Record]] = {}
    for record in records:
        table.setdefault(Problem.of(record), {})[record["job"]["competitor"]] = record
    return table


def reached(record: Record | None) -> bool:
    """Whether every penalty's gap was certified to be small enough."""
    return record is not None and record["status"] == "reached"


def passes(record: Record) -> float | None:
    """Passes of all penalties; None where the solver does not tell."""
    counts = [point["num_passes"] for point in record["points"]]
    return None if None in counts or not counts else sum(counts)


def roofline_share(record: Record, machine: dict[str, Any]) -> float | None:
    """Least possible time of the passes that were taken, over the time that they took."""
    count, job = passes(record), record["job"]
    if not reached(record) or count is None or not record["seconds"]:
        return None
    sizes = (job["num_rows"], job["num_features"], job["num_classes"])
    return float(count * pass_seconds(*sizes, machine) / record["seconds"])


@dataclass(frozen=True)
class Speedup:
    """How much longer another solver takes than ours.

    Attributes:
        ratio: of the times; a lower bound if `at_least`.
        at_least: the other one was stopped.
        competitor: the first of those compared to arrive, or to be stopped.
    """

    ratio: float
    at_least: bool
    competitor: str

    def __str__(self) -> str:
        return f"{'≥ ' if self.at_least else ''}{self.ratio:.1f}x ({self.competitor})"


def speedup(solvers: dict[str, Record], others: Iterable[str] = SKLEARN) -> Speedup | None:
    """Our time against the best of `others` on one problem; None where nothing can be said.

    Solvers that could not be run count neither way. One that was stopped might have got there the
    moment after: the best of all takes at least as long as the first to arrive or to be stopped.
    """
    ours = solvers.get(OURS)
    if ours is None or not reached(ours):
        return None
    known = {name: solvers[name] for name in others if name in solvers}
    times = {name: spent(r) for name, r in known.items() if reached(r) or r["status"] == "time cap"}
    if not times:
        return None
    best = min(times, key=lambda name: times[name])
    return Speedup(times[best] / ours["seconds"], not reached(known[best]), best)


def spent(record: Record) -> float:
    """Seconds on the clock; the cap, where the process had to be stopped."""
    return max(record["seconds"] or 0.0, record["cap"] if record["status"] == "time cap" else 0.0)


def outcome(record: Record) -> str:
    """Seconds, or why there are none."""
    if reached(record):
        return f"{record['seconds']:.2f} s"
    if record["status"] == "time cap":
        return f"over {spent(record):.0f} s{_progress(record)}"
    if record["status"] == "gap not reached":
        return f"stalled after {record['seconds']:.1f} s{_progress(record)}"
    return str(record["reason"] or record["status"])


def _progress(record: Record) -> str:
    points, l2s = record["points"], record["job"]["l2s"]
    if not points:
        return ""
    last = points[-1]
    where = f" at l2 = {last['l2']:.0e}" if len(l2s) > 1 else ""
    return f", gap {last['duality_gap']:.0e}{where}"
