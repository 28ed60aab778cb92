"""Figures of the page: measured numbers in, matplotlib figures out."""

from collections.abc import Callable, Sequence
from math import nan
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from benchmarks.figures import (
    Measured,
    Problem,
    Record,
    by_problem,
    of_suite,
    reached,
    roofline_share,
    spent,
)
from benchmarks.jobs import OURS
from linprobe.report.style import LIGHT, STYLE
from linprobe.runtime.files import atomic_write

_LOOKS = {
    OURS: ("vermilion", "o", "-"),
    "sklearn lbfgs": ("blue", "s", "--"),
    "sklearn newton-cg": ("green", "^", "--"),
    "sklearn newton-cholesky": ("purple", "D", "--"),
    "torch L-BFGS": ("orange", "v", ":"),
    "torch Adam": ("muted", "P", ":"),
    "probekit": ("violet", "X", "-."),
}
_SECONDS = "seconds to a certified gap of 1e-4 nats"
_GROWTH: dict[str, tuple[str, Callable[[Problem], int]]] = {
    "growth n": ("samples n", lambda problem: problem.num_rows),
    "growth D": ("features D", lambda problem: problem.num_features),
    "growth K": ("classes K", lambda problem: problem.num_classes),
    "growth path": ("penalties on the path", lambda problem: len(problem.l2s)),
}


def draw_all(measured: Measured, folder: Path) -> list[str]:
    """Write every figure that there are numbers for; return the names of the files."""
    made = []
    with plt.rc_context(STYLE):
        for name, draw in (("cold", cold), ("path", path), ("growth", growth)):
            figure = draw(measured)
            if figure is None:
                continue
            with atomic_write(folder / f"{name}.png") as temporary:
                figure.savefig(temporary, format="png", dpi=130)
            plt.close(figure)
            made.append(f"{name}.png")
    return made


def cold(measured: Measured) -> Figure | None:
    """Time of single penalties against the number of features, and our share of the roofline."""
    records = of_suite(measured, "cold")
    if not records:
        return None
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9, 3.8), layout="constrained", width_ratios=(2, 1)
    )
    _lines(left, records, lambda problem: problem.num_features)
    left.set(xlabel="features D", ylabel=_SECONDS, title="One penalty from cold")
    shares = [
        (record["job"]["num_features"], share)
        for record in records
        if record["job"]["competitor"] == OURS
        and (share := roofline_share(record, measured["machine"])) is not None
    ]
    right.plot(*zip(*shares, strict=True), color=LIGHT["vermilion"], marker="o", label=OURS)
    right.axhline(0.5, color=LIGHT["muted"], dashes=(4, 3), linewidth=1)
    right.text(0.02, 0.51, "target", color=LIGHT["muted"], transform=right.get_yaxis_transform())
    right.set(xlabel="features D", ylabel="share", title="linprobe: share of the roofline")
    _log_axis(right, "x", _spread([size for size, _ in shares]))
    right.set_ylim(0, 1)
    return _finish(figure, left)


def path(measured: Measured) -> Figure | None:
    """Time spent when each penalty of the path was reached, a panel a layer."""
    table = by_problem(of_suite(measured, "path"))
    if not table:
        return None
    figure, panels = plt.subplots(
        *(1, len(table)), figsize=(1 + 3.2 * len(table), 3.6), layout="constrained", sharey=True
    )
    axes: list[Axes] = [panels] if len(table) == 1 else list(panels)
    for panel, (problem, solvers) in zip(axes, table.items(), strict=True):
        for name, record in solvers.items():
            points = record["points"] if reached(record) else record["points"][:-1]
            steps = [(point["l2"], point["seconds"]) for point in points]
            if steps:
                panel.plot(*zip(*steps, strict=True), **_look(name))
        panel.set(title=f"{problem.layer} (D = {problem.num_features:,})", xlabel="l2")
        _log_axis(panel, "x", problem.l2s[::2], "{:.0e}")
        _log_axis(panel, "y")
        panel.invert_xaxis()
    axes[0].set_ylabel("seconds since the start")
    return _finish(figure, axes[0])


def growth(measured: Measured) -> Figure | None:
    """How time grows with samples, features, classes and penalties: log-log panels."""
    present = {suite: found for suite in _GROWTH if (found := of_suite(measured, suite))}
    if not present:
        return None
    figure, panels = plt.subplots(
        *(1, len(present)), figsize=(0.8 + 2.7 * len(present), 3.4), layout="constrained"
    )
    axes: list[Axes] = [panels] if len(present) == 1 else list(panels)
    for panel, (suite, records) in zip(axes, present.items(), strict=True):
        label, size = _GROWTH[suite]
        _lines(panel, records, size)
        panel.set(xlabel=label)
    axes[0].set_ylabel(_SECONDS)
    return _finish(figure, axes[0])


def _lines(panel: Axes, records: list[Record], size: Callable[[Problem], int]) -> None:
    """A line a competitor, broken by an open marker with an arrow where it was stopped."""
    for name in _LOOKS:
        mine = [record for record in records if record["job"]["competitor"] == name]
        line = [(size(Problem.of(r)), r["seconds"] if reached(r) else nan) for r in mine]
        late = [(size(Problem.of(r)), spent(r)) for r in mine if r["status"] == "time cap"]
        look = _look(name)
        if any(map(reached, mine)):
            panel.plot(*zip(*line, strict=True), **look)
        if late:
            arrow = {"arrowstyle": "->", "color": look["color"]}
            look |= {"label": "_", "linestyle": "none", "markerfacecolor": "none"}
            panel.plot(*zip(*late, strict=True), **look)
            panel.margins(y=0.15)
            for x, y in late:
                panel.annotate("", (x, 1.5 * y), (x, y), arrowprops=arrow)
    sizes = sorted({size(Problem.of(record)) for record in records})
    _log_axis(panel, "x", _spread(sizes))
    _log_axis(panel, "y")


def _spread(sizes: Sequence[int]) -> list[int]:
    """Those of rising sizes that leave room for their labels."""
    return [x for i, x in enumerate(sizes) if i == 0 or x >= 1.7 * sizes[i - 1]]


def _log_axis(
    panel: Axes, name: str, ticks: Sequence[float] | None = None, text: str = "{:,g}"
) -> None:
    """A logarithmic axis with plain numbers, at `ticks` or at 1, 2 and 5 of every decade."""
    axis: Axis = panel.xaxis if name == "x" else panel.yaxis
    panel.set(**{f"{name}scale": "log"})
    axis.set_major_locator(FixedLocator(ticks) if ticks else LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, place: text.format(value)))
    axis.set_minor_locator(NullLocator())
    if len(ticks or ()) > 5:
        axis.set_tick_params(rotation=45)


def _look(name: str) -> dict[str, Any]:
    colour, marker, line = _LOOKS[name]
    return {"label": name, "color": LIGHT[colour], "marker": marker, "linestyle": line}


def _finish(figure: Figure, panel: Axes) -> Figure:
    for axes in figure.axes:
        axes.grid(True, axis="both")
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, max(1, len(labels))))
    return figure
