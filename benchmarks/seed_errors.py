"""``python -m benchmarks.seed_errors``: Figure 8 over seeds, from numbers kept in the repository.

A seed of 128 layers takes long, so what is shown of one is kept, a row a probe, in
``docs/figures/fig8_seeds.csv``. The command prints mean and range of the test error at some layers,
and draws all of them. ``--keep RUN ...`` first adds runs of ``reproduce fig8 --seed N``, or
the seeds of a folder of ``--seeds``; a seed that is kept already is replaced.
"""

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from benchmarks.paper_tables import SHOWN
from linprobe.records.schema import RunRecord
from linprobe.records.seeds import spread
from linprobe.records.store import load_run, seed_folders
from linprobe.report.style import LIGHT, STYLE
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.files import atomic_write, write_csv

KEPT = Path("docs/figures/fig8_seeds.csv")
DRAWN = Path("docs/figures/seeds128.png")


@dataclass(frozen=True)
class Row:
    """One probe of one seed; `undecided`: test samples that its certificate leaves open."""

    seed: int
    checkpoint: str
    layer: str
    l2: float
    status: str
    train_error_rate: float
    test_error_rate: float
    duality_gap: float
    undecided: int


def rows_of(run: RunRecord) -> Iterator[Row]:
    """Yield what is kept of a run.

    Raises:
        LinprobeError: It is not a complete default run of Figure 8.
    """
    if not run.complete or run.quick or run.experiment != "fig8" or run.protocol != "certified":
        raise LinprobeError(f"seed {run.seed} is no complete, certified, full run of fig8")
    for checkpoint in run.checkpoints:
        for probe in checkpoint.probes:
            found = probe.evaluation.num_undecided if probe.evaluation else None
            yield Row(
                *(run.seed, checkpoint.name, probe.layer, probe.l2, str(probe.status)),
                *(round(probe.train_error_rate, 6), probe.test_error_rate),
                *(float(f"{probe.duality_gap:.3g}"), -1 if found is None else found),
            )


def keep(folders: Sequence[Path], path: Path) -> list[Row]:
    """Add runs to those kept, and return all."""
    places = [run for folder in folders for run in (seed_folders(folder) or [folder])]
    rows = {(row.seed, row.checkpoint, row.layer): row for row in read(path)}
    for place in places:
        run = load_run(place)
        if place.parent in folders and not run.complete:
            continue  # a seed on its way
        rows |= {(row.seed, row.checkpoint, row.layer): row for row in rows_of(run)}
    kept = sorted(rows.values(), key=lambda row: row.seed)
    write_csv(path, [field.name for field in fields(Row)], map(list, map(astuple, kept)))
    return kept


def read(path: Path) -> list[Row]:
    """Read what is kept; nothing where there is no file."""
    if not path.exists():
        return []
    types = {field.name: field.type for field in fields(Row)}
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Row(**{name: types[name](value) for name, value in line.items()})  # type: ignore[operator]
            for line in csv.DictReader(file)
        ]


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Write mean and range of the test error at some layers, a row a layer."""
    names, seeds = _checkpoints(rows), sorted({row.seed for row in rows})
    sure = sum(row.status == "converged" for row in rows)
    exact = sum(row.undecided == 0 for row in rows)
    yield f"seeds {seeds}: {sure} of {len(rows)} converged, {exact} leave no test sample undecided"
    yield "| layer (test error) | " + " | ".join(names) + " |"
    yield "|---" * (len(names) + 1) + "|"
    for layer in ("input", *(f"layer{number}" for number in SHOWN), "logits"):
        cells = [_errors(rows, name).get(layer, []) for name in names]
        spreads = [spread(cell) for cell in cells if cell]
        shown = [f"{s.mean:.4f} ({s.low:.4f} to {s.high:.4f})" for s in spreads]
        yield f"| {layer} | " + " | ".join(shown) + " |"


def draw(rows: Sequence[Row]) -> Figure:
    """Draw mean and range at all layers, a panel a checkpoint."""
    names, count = _checkpoints(rows), len({row.seed for row in rows})
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(names), figsize=(11, 3.6), sharey=True, squeeze=False)
        for name, ax in zip(names, axes[0], strict=True):
            spreads = [spread(rates) for rates in _errors(rows, name).values()]
            low, high = ([getattr(s, end) for s in spreads] for end in ("low", "high"))
            place = range(len(spreads))
            ax.fill_between(place, low, high, color=LIGHT["blue"], alpha=0.3, linewidth=0)
            ax.plot(place, [s.mean for s in spreads], color=LIGHT["blue"], linewidth=1)
            ax.set(title=name, xlabel="layer (0: input; last: logits)", ylim=(0, 1))
        axes[0][0].set_ylabel("test error of the probe")
        figure.suptitle(f"Figure 8: mean and range over {count} seeds")
    return figure


def _checkpoints(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.checkpoint for row in rows))


def _errors(rows: Sequence[Row], checkpoint: str) -> dict[str, list[float]]:
    """Test errors of the seeds, by layer."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row.checkpoint == checkpoint:
            found.setdefault(row.layer, []).append(row.test_error_rate)
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Run the command; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.seed_errors", description="Figure 8's errors over seeds."
    )
    parser.add_argument("--keep", type=Path, nargs="+", default=[], help="folders of runs to add")
    parser.add_argument("--kept", type=Path, default=KEPT, help=f"the numbers (default {KEPT})")
    parser.add_argument("--out", type=Path, default=DRAWN, help=f"the figure (default {DRAWN})")
    options = parser.parse_args(words)
    rows = keep(options.keep, options.kept)
    print("\n".join(table(rows)))
    with atomic_write(options.out) as temporary:
        draw(rows).savefig(temporary, format="png", dpi=130)


if __name__ == "__main__":
    main()
