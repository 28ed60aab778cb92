"""Print what docs/figures.md says, from the runs that it names.

    python -m benchmarks.paper_tables RUN [RUN ...]

Runs of one figure are put beside each other in the order given; the first is to be certified. For
each figure: errors of layers beside the published numbers, mean absolute distances, and of each run
what is certified, exact, rounded and chosen.
"""

import argparse
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from linprobe.records.comparison.curves import Curve
from linprobe.records.comparison.distances import LOWER, UPPER, Comparison, compare
from linprobe.records.published import load_published
from linprobe.records.schema import CheckpointRecord, ProbeRecord, RunRecord
from linprobe.records.store import load_run

SHOWN = (1, 4, 9, 17, 32, 48, 64, 65, 80, 96, 128)
_SAME = 0.002  # of the error of predicting one class
_BETTER = 1e-3  # differences of error rates that count


def describe(path: Path, run: RunRecord) -> Iterator[str]:
    """Say of a run how well its probes are known."""
    probes = [probe for checkpoint in run.checkpoints for probe in checkpoint.probes]
    gaps = [probe.duality_gap for probe in probes]
    unit = "epochs" if run.protocol == "sgd" else "passes"
    yield (
        f"{path}: seed {run.seed}, {len(probes)} probes, {sum(p.converged for p in probes)} "
        f"converged; gaps: median {statistics.median(gaps):.1e}, largest {max(gaps):.1e} nats; "
        f"{sum(probe.num_passes for probe in probes):,.0f} {unit}; {run.seconds / 60:.1f} min, "
        f"peak {run.peak_rss_bytes / 1e9:.1f} GB."
    )
    stages: dict[str, float] = {}
    for checkpoint in run.checkpoints:
        for stage, seconds in checkpoint.stages.items():
            stages[stage] = stages.get(stage, 0.0) + seconds
    yield "  seconds: " + ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in stages.items())
    if run.protocol == "sgd":
        yield from map(_endings, run.checkpoints)
        return
    open_ = [p.evaluation.num_undecided for p in probes if p.evaluation]
    known = [count for count in open_ if count is not None]
    yield (
        f"  undecided test samples: none for {known.count(0)} of {len(probes)} probes, median "
        f"{statistics.median(known):.0f}, largest {max(known)}"
    )
    yield (
        f"  at an end of the path: {sum(p.l2_at_edge for p in probes)}; penalties from "
        f"{min(p.l2 for p in probes):.0e} to {max(p.l2 for p in probes):.0e}, below 1e-9 for "
        f"{sum(p.l2 < 1e-9 for p in probes)}"
    )
    again = [probe for probe in probes if probe.native is not None]
    total, more = (sum(probe.seconds for probe in some) for some in (probes, again))
    own = sum(probe.native.seconds for probe in again if probe.native is not None)
    yield (
        f"  read in float64: {len(again)}, for {(total + own) / (total - more + own):.2f} times "
        f"the solving time of all in their own dtype; rounded: {sum(p.rounded for p in probes)}"
    )


def _endings(checkpoint: CheckpointRecord) -> str:
    """Say how the trained probes of a checkpoint ended."""
    probes = checkpoint.probes
    ends = Counter(probe.status for probe in probes)
    one_class = max(probe.train_error_rate for probe in probes)
    stuck = sum(probe.train_error_rate > one_class - _SAME for probe in probes)
    return (
        f"  {checkpoint.name}: "
        + ", ".join(f"{number} {status}" for status, number in ends.most_common())
        + f"; median gap {statistics.median(p.duality_gap for p in probes):.1e} nats, larger than "
        f"the objective itself: {sum(p.duality_gap > p.objective for p in probes)}; "
        f"train error within {_SAME} of the largest, {one_class:.4f}: {stuck}"
    )


def figure5(comparison: Comparison) -> Iterator[str]:
    """Tabulate errors and gaps of every layer, and where the error rises."""
    panels, curves = comparison.panels, comparison.curves
    published = comparison.published
    columns = [
        f"{panel.name}: {what}"
        for panel in panels
        for what in ("published", *(name for c in curves for name in (c.label, "its gap")))
    ]
    yield from _head(["layer", *columns])
    for layer in panels[0].layers:
        cells = [layer]
        for panel in panels:
            rate = panel.published.get("layer", {}).get(layer) if published else None
            cells.append("" if rate is None else _rate(rate, 2))
            for points in panel.curves:
                cells += [_rate(points[layer].error.mean), f"{points[layer].duality_gap:.0e}"]
        yield _row(cells)
    for panel in panels:
        for curve, points in zip(curves, panel.curves, strict=True):
            rates = [points[layer].error.mean for layer in panel.layers]
            rises = [
                f"{layer} ({before:.4f} to {after:.4f})"
                for layer, before, after in zip(panel.layers[1:], rates, rates[1:], strict=False)
                if after > before + _BETTER
            ]
            yield f"{panel.name}, {curve.label}: error rises at {', '.join(rises) or 'no layer'}"


def figure8(comparison: Comparison) -> Iterator[str]:
    """Tabulate chosen layers and the distances from the published bars."""
    panels, curves = comparison.panels, comparison.curves
    labels = [curve.label for curve in curves]
    yield from _head(["layer", *(f"{p.name}: {x}" for p in panels for x in ("published", *labels))])
    for layer in (*(f"layer{number}" for number in SHOWN), "logits"):
        if layer not in panels[0].layers:
            continue
        cells = [layer]
        for panel in panels:
            rate = panel.published.get("layer", {}).get(layer)
            cells.append("" if rate is None else _rate(rate, 3))
            cells += [_rate(points[layer].error.mean, 3) for points in panel.curves]
        yield _row(cells)
    yield ""
    yield from _head(["checkpoint", "curve", "minus", "mean", LOWER, UPPER, "largest", "at"])
    for panel in panels:
        for found in comparison.distances(panel):
            means = [found.mean_absolute(part) for part in (None, LOWER, UPPER)]
            layer, value = found.largest or ("", float("nan"))
            parts = [f"{mean:.3f}" for mean in means]
            yield _row([panel.name, found.curve, found.other, *parts, f"{value:+.3f}", layer])


def test_errors(runs: Sequence[RunRecord]) -> Iterator[str]:
    """Tabulate the test errors of the first run's chosen layers, and its lower half's plateau."""
    run = runs[0]
    yield from _head(["layer (test error)", *(item.name for item in run.checkpoints)])
    layers = ["input", *(f"layer{number}" for number in (1, 8, 16, *SHOWN[4:])), "logits"]
    found = [{probe.layer: probe for probe in item.probes} for item in run.checkpoints]
    for layer in (layer for layer in layers if layer in found[0]):
        yield _row([layer, *(_rate(probes[layer].test_error_rate) for probes in found)])
    for item in run.checkpoints:
        if own := {p.layer: p.native for p in item.probes if p.native is not None}:
            rates = [native.test_error_rate for native in own.values()]
            exact = [p.test_error_rate for p in item.probes if p.layer in own]
            yield (
                f"{item.name}: {', '.join(own)} read in float64, from {_rate(min(exact))} to "
                f"{_rate(max(exact))}; in float32 from {_rate(min(rates))} to {_rate(max(rates))}"
            )
        apart = [abs(p.test_error_rate - p.train_error_rate) for p in item.probes]
        moved = [_moved(a, b) for a, b in zip(item.probes, run.checkpoints[0].probes, strict=True)]
        yield (
            f"{item.name}: train and test error differ by {statistics.mean(apart):.4f} on "
            f"average, {max(apart):.4f} at most; from the first checkpoint the error moved by "
            f"more than .01 at {sum(moved)} of {len(moved)} layers"
        )


def _moved(probe: ProbeRecord, before: ProbeRecord) -> bool:
    return abs(probe.test_error_rate - before.test_error_rate) > 0.01


def _head(cells: Sequence[str]) -> Iterator[str]:
    yield _row(cells)
    yield "|" + "---|" * len(cells)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _rate(rate: float, digits: int = 4) -> str:
    return f"{rate:.{digits}f}".removeprefix("0")


def main() -> None:
    """Print the tables of each figure that runs are given of."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    paths = parser.parse_args().runs
    found = [(path, load_run(path)) for path in paths]
    for name in sorted({run.experiment for _, run in found}):
        mine = [(path, run) for path, run in found if run.experiment == name]
        print(f"\n## {name}\n")
        for path, run in mine:
            print("\n".join(describe(path, run)))
        print()
        published = load_published(name)
        depth = mine[0][1].config.experiment.depth
        curves = [Curve(path.name, (run,), published.split) for path, run in mine]
        if published.depth in (None, depth):
            comparison = compare(curves, published=published)
            print("\n".join((figure8 if name == "fig8" else figure5)(comparison)))
            print()
        if name == "fig8":
            print("\n".join(test_errors([run for _, run in mine])))


if __name__ == "__main__":
    main()
