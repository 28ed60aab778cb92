"""``docs/performance.md``, written from the JSON of a run and from nothing else."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import few_rows, label_sets, tall
from benchmarks.drawn import DRAWN
from benchmarks.figures import (
    Measured,
    Record,
    by_problem,
    of_suite,
    outcome,
    passes,
    reached,
    roofline_share,
    speedup,
)
from benchmarks.jobs import OURS
from benchmarks.measure import NAME, write
from benchmarks.plots import draw_all
from benchmarks.products import HEADER, table_rows
from benchmarks.targets import target_rows
from linprobe.runtime.files import atomic_write

_INTRO = """# Performance

Written by `make bench` from [benchmarks.json](performance/benchmarks.json); do not edit.

All solvers minimise the same P(W, b) = mean CE + l2/2 ||W||^2 (scikit-learn's C = 1 / (n l2)) on
the same standardised float32 features of the paper's two networks. A solver is done when
`linprobe.certify` proves a duality gap of at most 1e-4 nats. Computing certificates is not timed.
The tolerances of scikit-learn and probekit are tightened until the gap is reached, and only the
last, sufficient fit from a cold start is timed; where float32 does not suffice, scikit-learn
continues in float64. Along a path, every solver starts from its previous solution. The torch
optimisers stop at the first certificate that suffices; L-BFGS uses a strong Wolfe line search and a
memory of 10, Adam uses full batches at a learning rate of 0.3. Each solver runs in a process of its
own. Fits of a few seconds are repeated up to three times, and the fastest is reported.

Columns: `ratio` is the time relative to linprobe's. `cores` is processor time over elapsed time;
where it is below the number of threads, the solver leaves threads idle or the machine had other
work. `passes` counts reads of all features for logits and gradient. `roofline` is the least
possible time of those passes over the time taken. `peak GB` is the memory of the process, features
included.
"""

_PASS = """A pass is one product for the logits and one for the gradient, each with a side of ten
columns. At this shape the limits of memory and of arithmetic are about equally near, and PyTorch's
products reach neither: their time alone bounds every roofline share below. `as one product`:
without linprobe's blocks of rows. The rest of a solver's time goes into its model of the Hessian,
on a sample of rows.
"""


_FEW = """1,024 rows of 4,096 features (`python -m benchmarks.few_rows`): path, refit, certificate
and test, with and without going on to the exact optimum, and with the penalty chosen by error rate
instead of cross-entropy; beside scikit-learn's sweep as it is usual for language models (ten values
of C from 1e-5 to 1e5, chosen by error rate, lbfgs with at most 1,000 iterations, `StandardScaler`),
whose last fit is certified for the problem that it states. One thread, processor seconds.
"""

_SETS = """As many label sets on the same rows and features (`python -m benchmarks.label_sets`): a
whole call of `linprobe.fit_label_sets`, with evaluation and records, beside as many sweeps of
scikit-learn. One thread, processor seconds.
"""

_TALL = """3,000,000 rows of 768 features in 16 bits on a disk, 40 classes, within 4 GB (`python -m
benchmarks.tall`, which says more). `ratio`: the whole path and refit, over the time of its reads
and products at their measured rates.
"""


def write_page(measured: Measured, docs: Path) -> None:
    """Write ``performance.md``, its figures and the JSON that they are made from into `docs`."""
    figures = draw_all(measured, docs / "performance")
    text = "\n".join([_INTRO, *_sections(measured, figures)]).rstrip() + "\n"
    write(docs / "performance" / NAME, measured)
    with atomic_write(docs / "performance.md") as temporary:
        temporary.write_text(text, encoding="utf-8")


def _sections(measured: Measured, figures: Sequence[str]) -> Iterable[str]:
    yield _machine(measured)
    if measured.get("note"):
        yield f"{measured['note']}\n"
    yield "## Targets\n"
    yield _table(("target", "measured", "met"), target_rows(measured))
    if "products" in measured:
        yield "## What a pass costs\n"
        yield _PASS
        yield _table(HEADER, table_rows(measured["products"], measured["machine"]))
    for device in ("cpu", "cuda"):
        for suite, title, plot in (
            ("cold", "One penalty from a cold start", "cold.png"),
            ("path", "A path of penalties", "path.png"),
            ("binary", "Two classes", None),
            ("few", "Two classes, few rows of many features", None),
            ("classes", "Many classes", None),
            ("batched", "Two classes, layers of equal width together", None),
        ):
            records = of_suite(measured, suite, device)
            if records:
                yield f"## {title}{' (CUDA)' if device == 'cuda' else ''}\n"
                if plot in figures and device == "cpu":
                    yield f"![{title}](performance/{plot})\n"
                yield _comparison(records, measured, device)
    for name, title, said, header, rows in (
        ("few_rows", "Few rows, two classes: whole probes", _FEW, few_rows.HEADER, _few_cells),
        ("label_sets", "Several label sets", _SETS, label_sets.HEADER, label_sets.table_rows),
        ("tall", "More rows than the memory holds", _TALL, tall.HEADER, _tall_cells),
    ):
        if name in measured:
            yield f"## {title}\n"
            yield said
            yield _table(header, rows(measured[name]))
    if "growth.png" in figures:
        yield "## Growth\n"
        yield _growth_text(measured)
        yield "![Time against n, D, K and the length of the path](performance/growth.png)\n"


def _few_cells(found: Iterable[dict[str, Any]]) -> list[list[str]]:
    return [few_rows.cells(one) for one in found]


def _tall_cells(found: dict[str, Any]) -> list[list[str]]:
    return [found["cells"]]


def _machine(measured: Measured) -> str:
    machine = measured["machine"]
    names = ("torch", "scikit-learn", "scipy", "numpy", "probekit", "python")
    versions = ", ".join(f"{name} {machine.get(name) or '(not installed)'}" for name in names)
    most = max((r["cap"] / len(r["job"]["l2s"]) for r in measured["results"].values()), default=0)
    text = (
        f"Machine: {machine['cpu']}, {machine['threads']} threads; a float32 product of "
        f"3000 x 3000 runs at {machine['gemm_flops'] / 1e9:.0f} GF/s and memory is read at "
        f"{machine['read_bytes'] / 1e9:.0f} GB/s. Versions: {versions}. A solver is stopped after "
        "a multiple of linprobe's time on the same problem (the ratios with ≥), at most "
        f"{most:.0f} s for each penalty. The machine is shared: compare ratios rather than "
        "seconds.\n"
    )
    if "cuda" in machine:
        gpu = machine["cuda"]
        text += (
            f"\n{gpu['device']}: {gpu['gemm_flops'] / 1e12:.1f} TF/s and "
            f"{gpu['read_bytes'] / 1e9:.0f} GB/s.\n"
        )
    return text


def _comparison(records: list[Record], measured: Measured, device: str) -> str:
    machine = measured["machine"] if device == "cpu" else measured["machine"]["cuda"]
    rows: list[tuple[str, ...]] = []
    penalties = records[0]["job"]["l2s"]
    differ = any(record["job"]["l2s"] != penalties for record in records)
    for problem, solvers in by_problem(records).items():
        what = f"{problem.layer}, n = {problem.num_rows:,}, D = {problem.num_features:,}"
        if differ:
            what += f", K = {problem.num_classes:,}, l2 = {problem.l2s[0]:.0e}"
        for name, record in solvers.items():
            share, memory = roofline_share(record, machine), record.get("peak_rss_bytes")
            shown = (
                _cores(record),
                _passes(record, name),
                "" if share is None or name != OURS else f"{share:.2f}",
                "" if memory is None else f"{memory / 1e9:.2f}",
            )
            rows.append((what, name, outcome(record), _ratio(record, solvers), *shown))
            what = ""
    first, last = f"{penalties[0]:.0e}", f"{penalties[-1]:.0e}"
    intro = (
        ""
        if differ
        else f"l2 = {first}."
        if len(penalties) == 1
        else f"{len(penalties)} penalties from {first} to {last}, each to a certified gap of 1e-4."
    )
    if any(record["job"]["layer"] in DRAWN for record in records):
        intro = f"Features are drawn (`benchmarks/drawn.py`). {intro}".strip()
    header = ("problem", "solver", "time", "ratio", "cores", "passes", "roofline", "peak GB")
    best = [
        f"{problem.layer}{f' at {problem.l2s[0]:.0e}' if differ else ''} {found}"
        for problem, solvers in by_problem(records).items()
        if (found := speedup(solvers)) is not None
    ]
    against = f" Ratio to scikit-learn's best solver: {'; '.join(best)}.\n" if best else "\n"
    return intro + against + "\n" + _table(header, rows)


def _ratio(record: Record, solvers: dict[str, Record]) -> str:
    ours = solvers.get(OURS)
    name = record["job"]["competitor"]
    found = None if ours is None or ours is record else speedup({OURS: ours, name: record}, [name])
    return "" if found is None else str(found).split(" (")[0]


def _cores(record: Record) -> str:
    """Processor time over time: less than the threads where others held the machine."""
    if not record["seconds"] or not record.get("cpu_seconds"):
        return ""
    return f"{record['cpu_seconds'] / record['seconds']:.1f}"


def _passes(record: Record, name: str) -> str:
    count = passes(record)
    if count is None:
        return ""
    # scikit-learn counts iterations of L-BFGS, each at least one evaluation.
    return f"≥ {count:.0f}" if name == "sklearn lbfgs" else f"{count:.0f}"


def _growth_text(measured: Measured) -> str:
    sizes = {
        suite: next(iter(by_problem(of_suite(measured, suite))), None)
        for suite in ("growth n", "growth D", "growth K", "growth path")
    }
    said = []
    if sizes["growth n"]:
        said.append(f"samples of {sizes['growth n'].layer}")
    for suite, what in (("growth D", "columns"), ("growth K", "classes")):
        if problem := sizes[suite]:
            said.append(f"{what} of {problem.layer} (n = {problem.num_rows:,})")
    if problem := sizes["growth path"]:
        said.append(f"penalties between 1e-1 and 1e-6 at {problem.layer}")
    late = [
        r
        for suite in sizes
        for r in of_suite(measured, suite)
        if not reached(r) and r["status"] == "time cap"
    ]
    end = " Open markers with an arrow: stopped at the time limit." if late else ""
    return f"Growth with {', '.join(said)}.{end}\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
