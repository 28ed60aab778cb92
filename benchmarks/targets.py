"""The targets that the solver was built to, against what was measured."""

from collections.abc import Iterable

from benchmarks.figures import (
    Measured,
    Problem,
    Record,
    by_problem,
    of_suite,
    passes,
    reached,
    roofline_share,
    speedup,
)
from benchmarks.jobs import OURS

_WIDE, _NARROW = 3136, 128
_MOST_PASSES = 20
_LEAST_SHARE = 0.5
_CLASSES, _MOST_STEPS, _MOST_GB = 10.0, 15, 4
_COLD_WIDE, _COLD_NARROW, _PATH = 10.0, 5.0, 20.0

Row = tuple[str, str, str]


def target_rows(measured: Measured) -> list[Row]:
    """Target, figure and whether it is met, a row each; "not measured" where that is so."""
    paths, cold = (by_problem(of_suite(measured, suite)) for suite in ("path", "cold"))
    wide = {p: s for p, s in cold.items() if p.num_features >= _WIDE}
    narrow = {p: s for p, s in cold.items() if _NARROW <= p.num_features < _WIDE}
    rows = [_passes_row(paths)]
    wide_paths = {p: s for p, s in paths.items() if p.num_features >= _WIDE}
    rows += _roofline_rows(wide | wide_paths, measured)
    rows += _speed_rows(wide, f"one penalty from a cold start, D ≥ {_WIDE:,}", _COLD_WIDE)
    rows += _speed_rows(
        narrow, f"one penalty from a cold start, D = {_NARROW} .. 784", _COLD_NARROW
    )
    rows += _speed_rows(paths, "a path of 8 penalties", _PATH)
    return rows + _classes_rows(by_problem(of_suite(measured, "classes")))


def _passes_row(paths: dict[Problem, dict[str, Record]]) -> Row:
    target = f"a path of 8 penalties in at most {_MOST_PASSES} passes"
    counts = {
        problem.layer: count
        for problem, solvers in paths.items()
        if reached(solvers.get(OURS)) and (count := passes(solvers[OURS])) is not None
    }
    if not counts:
        return target, "not measured", ""
    shown = ", ".join(f"{layer} {count:.0f}" for layer, count in counts.items())
    return target, shown, _verdict(count <= _MOST_PASSES for count in counts.values())


def _roofline_rows(table: dict[Problem, dict[str, Record]], measured: Measured) -> list[Row]:
    target = f"within a factor of 2 of the roofline at D ≥ {_WIDE:,} (share ≥ {_LEAST_SHARE})"
    shares = {
        f"{problem.layer}{' path' if len(problem.l2s) > 1 else ''}": share
        for problem, solvers in table.items()
        if OURS in solvers
        and (share := roofline_share(solvers[OURS], measured["machine"])) is not None
    }
    if not shares:
        return [(target, "not measured", "")]
    shown = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
    return [(target, shown, _verdict(share >= _LEAST_SHARE for share in shares.values()))]


def _speed_rows(table: dict[Problem, dict[str, Record]], what: str, least: float) -> list[Row]:
    target = f"{what}: ≥ {least:.0f}x faster than scikit-learn's best"
    found = {problem.layer: speedup(solvers) for problem, solvers in table.items()}
    known = {layer: ratio for layer, ratio in found.items() if ratio is not None}
    if not known:
        return [(target, "not measured", "")]
    shown = ", ".join(f"{layer} {ratio}" for layer, ratio in known.items())
    return [(target, shown, _verdict(ratio.ratio >= least for ratio in known.values()))]


def _classes_rows(table: dict[Problem, dict[str, Record]]) -> list[Row]:
    """Many classes: speed, passes and memory."""
    rows = []
    for problem, solvers in table.items():
        what = f"{problem.num_classes:,} classes, {problem.layer}, l2 {problem.l2s[0]:.0e}"
        target = f"{what}: ≥ {_CLASSES:.0f}x scikit-learn, ≤ {_MOST_STEPS} passes, ≤ {_MOST_GB} GB"
        ours, ratio = solvers.get(OURS), speedup(solvers)
        count = passes(ours) if ours is not None and reached(ours) else None
        if ours is None or ratio is None or count is None:
            rows.append((target, "not measured", ""))
            continue
        memory = ours["peak_rss_bytes"] / 1e9
        met = ratio.ratio >= _CLASSES, count <= _MOST_STEPS, memory <= _MOST_GB
        rows.append((target, f"{ratio}, {count:.0f} passes, {memory:.1f} GB", _verdict(met)))
    return rows


def _verdict(met: Iterable[bool]) -> str:
    values = list(met)
    return "yes" if all(values) else "partly" if any(values) else "no"
