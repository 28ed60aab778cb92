"""The targets that the solver was built to, against what was measured."""

from collections.abc import Iterable

from benchmarks import products
from benchmarks.figures import (
    Measured,
    Problem,
    Record,
    by_problem,
    of_suite,
    outcome,
    passes,
    reached,
    roofline_share,
    speedup,
)
from benchmarks.jobs import OURS, SKLEARN

_WIDE, _NARROW = 3136, 128
_MOST_PASSES = 20
_LEAST_SHARE = 0.5
_CLASSES, _MOST_STEPS, _MOST_GB = 10.0, 15, 4
_PRODUCTS = 0.7
_FEW = "1,024 rows x 4,096, two classes"
_FEW_SKLEARN, _FEW_PROBEKIT, _SETS, _TALL = 20.0, 2.0, 5.0, 3.0
_COLD_WIDE, _COLD_NARROW, _PATH = 10.0, 5.0, 20.0

Row = tuple[str, str, str]


def target_rows(measured: Measured) -> list[Row]:
    """Target, figure and whether it is met, a row each; "not measured" where that is so."""
    paths, cold = (by_problem(of_suite(measured, suite)) for suite in ("path", "cold"))
    wide = {p: s for p, s in cold.items() if p.num_features >= _WIDE}
    narrow = {p: s for p, s in cold.items() if _NARROW <= p.num_features < _WIDE}
    rows = [_passes_row(paths), _products_row(measured)]
    wide_paths = {p: s for p, s in paths.items() if p.num_features >= _WIDE}
    rows += _roofline_rows(wide | wide_paths, measured)
    rows += _speed_rows(wide, f"one penalty from a cold start, D ≥ {_WIDE:,}", _COLD_WIDE)
    rows += _speed_rows(
        narrow, f"one penalty from a cold start, D = {_NARROW} .. 784", _COLD_NARROW
    )
    rows += _speed_rows(paths, "a path of 8 penalties", _PATH)
    rows += _classes_rows(by_problem(of_suite(measured, "classes")))
    rows += _few_rows(by_problem(of_suite(measured, "few")), measured)
    return [*rows, _tall_row(measured)]


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
        if ours is None or count is None:
            rows.append((target, "not measured", ""))
            continue
        memory = ours["peak_rss_bytes"] / 1e9
        met = [count <= _MOST_STEPS, memory <= _MOST_GB]
        met += [] if ratio is None else [ratio.ratio >= _CLASSES]
        shown = f"{ratio or 'no other measured'}, {count:.0f} passes, {memory:.1f} GB"
        rows.append((target, shown, "" if ratio is None else _verdict(met)))
    return rows


def _products_row(measured: Measured) -> Row:
    target = f"products of a pass: share of the roofline ≥ {_PRODUCTS}"
    shares = {
        f"D = {one['num_features']:,}": products.share(one, measured["machine"])
        for one in measured.get("products", [])
    }
    shown = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
    met = _verdict(share >= _PRODUCTS for share in shares.values())
    return target, shown or "not measured", met


def _few_rows(table: dict[Problem, dict[str, Record]], measured: Measured) -> list[Row]:
    """Two classes on few rows: against other solvers, against a sweep, and several label sets."""
    rows = []
    for solvers in table.values():
        for least, names in ((_FEW_SKLEARN, SKLEARN), (_FEW_PROBEKIT, ("probekit",))):
            target = f"{_FEW}, a path of 8: ≥ {least:.0f}x {names[0].split()[0]}"
            ratio = speedup(solvers, names)
            met = "" if ratio is None else _verdict([ratio.ratio >= least])
            ends = [f"{name} {outcome(solvers[name])}" for name in names if name in solvers]
            rows.append((target, str(ratio or ", ".join(ends) or "not measured"), met))
    target = f"{_FEW}, a whole exact probe: ≥ {_FEW_SKLEARN:.0f}x scikit-learn's sweep"
    ratios = [one["sweep_seconds"] / one["exact_seconds"] for one in measured.get("few_rows", [])]
    shown = ", ".join(f"{ratio:.2f}x" for ratio in ratios)
    rows.append((target, shown or "not measured", _verdict(r >= _FEW_SKLEARN for r in ratios)))
    sets = measured.get("label_sets", [])
    target = f"{_FEW}, 20 label sets, exact and not: ≤ {_SETS:.0f} times one"
    times = [
        some[name] / sets[0][name]
        for some in sets
        if some["sets"] == 20
        for name in ("exact_seconds", "seconds")
    ]
    shown = ", ".join(f"{ratio:.1f}" for ratio in times)
    rows.append((target, shown or "not measured", _verdict(ratio <= _SETS for ratio in times)))
    return rows


def _tall_row(measured: Measured) -> Row:
    target = f"3 M rows x 768, 40 classes, within 4 GB: ≤ {_TALL:.0f}x its reads and products"
    if "tall" not in measured:
        return target, "not measured", ""
    ratio = measured["tall"]["ratio"]
    return target, f"{ratio:.1f}x", _verdict([ratio <= _TALL])


def _verdict(met: Iterable[bool]) -> str:
    values = list(met)
    if not values:
        return ""
    return "yes" if all(values) else "partly" if any(values) else "no"
