"""Show progress while a run goes on, and its tables at the end, in a terminal."""

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Column, Table

from linprobe.records.comparison.curves import Curve, Point
from linprobe.records.schema import CheckpointRecord, ProbeRecord, RunRecord
from linprobe.records.seeds import seed_words
from linprobe.report import doubts, wording
from linprobe.report.measures import TableColumn, table_columns
from linprobe.runtime.progress import Event, OnEvent, ignore
from linprobe.runtime.terminals import printable
from linprobe.runtime.text import duration, time_left

_WIDTH = 110  # where the output is a file, which has none
_MAX_DETAILED = 20
_DELAY = 2.0  # seconds
_SILENCE = 30.0  # seconds, after which a file gets a line for what is under way


def make_console(*, stderr: bool = False) -> Console:
    """Make a console that doesn't squeeze tables into 80 columns when writing to a file."""
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=_WIDTH)


@contextlib.contextmanager
def auto_progress(
    console: Console | None = None,
    *,
    delay: float = _DELAY,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[OnEvent]:
    """Show events in a terminal or a notebook, once the block has taken longer than `delay`.

    Args:
        console: where to; None: standard error.
        delay: seconds without a display, so that short calls leave no trace.
        clock: tells the time in seconds.

    Yields:
        The receiver of events.
    """
    console = make_console(stderr=True) if console is None else console
    if not (console.is_terminal or console.is_jupyter):
        yield ignore
        return
    started, shown = clock(), list[OnEvent]()
    with contextlib.ExitStack() as stack:

        def on_event(event: Event) -> None:
            if not shown and clock() - started > delay:
                shown.append(stack.enter_context(show_progress(console, started, clock)))
            for show in shown:
                show(event)

        yield on_event


@contextlib.contextmanager
def show_progress(
    console: Console,
    started: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[OnEvent]:
    """Show events until the block ends: a live bar in a terminal, else lines.

    There is a line for each milestone, and one for what is under way after half a minute without.

    Args:
        console: where to.
        started: when the work began, by the clock; None: now.
        clock: tells the time in seconds.

    Yields:
        The receiver of events.
    """
    begun = clock() if started is None else started
    if not console.is_terminal:
        yield _printed(console, begun, clock)
        return
    columns = (
        BarColumn(bar_width=12),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True)),
        TextColumn("{task.description}", table_column=Column(no_wrap=True, ratio=1)),
    )
    with Progress(*columns, console=console, expand=True) as progress:
        task = progress.add_task("starting", total=1.0, left="")

        def on_event(event: Event) -> None:
            if event.milestone:
                progress.console.print(escape(printable(_headline(event))))
            progress.update(
                task,
                completed=event.fraction,
                description=escape(printable(_headline(event))),
                left=time_left(event.fraction, clock() - begun),
            )

        yield on_event


def print_summary(
    console: Console, run: RunRecord, folder: object = None, metric: str | None = None
) -> None:
    """Print what a run found, how sure it is of it, how long it took and where it was written.

    A network of many layers gets one table of error rates; a smaller one a table a checkpoint
    with everything. `metric` names what is shown beside the errors, see `table_columns`.
    """
    columns = table_columns(run, metric)
    if max((len(item.probes) for item in run.checkpoints), default=0) <= _MAX_DETAILED:
        for checkpoint in run.checkpoints:
            console.print(_detailed(checkpoint, wording.passes(run), columns))
    else:
        console.print(_overview(run, columns))
    for line in summary_lines(run, folder):
        print_sentence(console, line)


def print_sentence(console: Console, text: str) -> None:
    """Print a line of text as it is: broken between words in a terminal, and never in a file."""
    console.print(text, markup=False, soft_wrap=not console.is_terminal)


def summary_lines(run: RunRecord, folder: object = None) -> Iterator[str]:
    """Yield the sentences below the tables."""
    probes = [probe for checkpoint in run.checkpoints for probe in checkpoint.probes]
    unsolved = [probe for probe in probes if probe.standing == "failed"]
    gaps = [p.duality_gap for p in probes if math.isfinite(p.duality_gap)]
    largest = f"; largest duality gap {max(gaps):.1e} nats" if gaps else ""
    if run.protocol == "sgd":
        yield wording.as_trained_summary(probes)
        ends = Counter(probe.status for probe in probes)
        yield "Ends: " + ", ".join(f"{status} {count}" for status, count in ends.items()) + "."
    else:
        yield f"{len(probes) - len(unsolved)} of {len(probes)} probes converged{largest}."
        if exactness := wording.exactness(probes):
            yield exactness
    if unsolved:
        reasons = sorted({probe.status for probe in unsolved})
        yield f"NOT converged: {len(unsolved)} probes ({', '.join(reasons)}); marked *."
    yield from doubts.doubts(run)
    yield from run.config.notes
    stages = ", ".join(f"{name} {duration(spent)}" for name, spent in run.stages.items())
    memory = run.peak_rss_bytes / 2**30
    yield f"Time {duration(run.seconds)} ({stages}); peak memory {memory:.1f} GiB."
    if run.quick:
        samples = run.dataset.num_train
        yield f"QUICK RUN on {samples:,} training samples: a smoke test, not a result."
    if folder is not None:
        yield f"Written to {folder}"


def print_seeds(console: Console, runs: Sequence[RunRecord], folder: object) -> None:
    """Print mean and range of the test error over runs that differ in their seed alone."""
    table = plain_table("test error: mean and range")
    for checkpoint in runs[0].checkpoints:
        table.add_column(f"{checkpoint.name}\nmean", justify="right")
        table.add_column("\nrange", justify="right")
    curve = Curve("", tuple(runs), "test")
    points = [curve.points(name) for name in curve.names()]
    for layer in dict.fromkeys(layer for found in points for layer in found):
        cells = [_mean_and_range(found.get(layer)) for found in points]
        table.add_row(escape(printable(layer)), *(cell for pair in cells for cell in pair))
    console.print(table)
    count, seeds = len(runs), seed_words(runs)
    console.print(f"Mean of n = {count}, {seeds}; the range is from the least to the largest.")
    for run in runs:
        line = next(iter(summary_lines(run)))
        console.print(f"seed {run.seed}: {line}", soft_wrap=True)
    if runs[0].quick:
        console.print("QUICK RUN: a smoke test, not a result.")
    console.print(escape(f"Written to {folder}"), soft_wrap=True)


def _mean_and_range(point: Point | None) -> tuple[str, str]:
    if point is None:
        return "", ""
    error, sure = point.error, "" if point.converged else " *"
    return f"{error.mean:.4f}{sure}", f"{error.low:.4f}-{error.high:.4f}"


def _printed(console: Console, begun: float, clock: Callable[[], float]) -> OnEvent:
    last = begun

    def on_event(event: Event) -> None:
        nonlocal last
        now = clock()
        if not event.milestone and now - last < _SILENCE:
            return
        last = now
        left = time_left(event.fraction, now - begun)
        line = f"[{event.fraction:4.0%}] {_headline(event)}" + (f" ({left})" if left else "")
        console.print(escape(line), soft_wrap=True)

    return on_event


def _headline(event: Event) -> str:
    return f"{event.checkpoint}: {event.text}"


def _detailed(checkpoint: CheckpointRecord, passes: str, columns: Sequence[TableColumn]) -> Table:
    error = checkpoint.network_test_error_rate
    title = checkpoint.name
    if math.isfinite(error):
        title += f": {checkpoint.step:,} minibatches, network test error {error:.4f}"
    table = plain_table(title)
    more = [name for name, _ in columns]
    for name in ("width", "l2", "train", "test", "95 % interval", *more, "gap", passes, "seconds"):
        table.add_column(name, justify="right")
    for probe in checkpoint.probes:
        low, high = probe.test_error_ci95
        table.add_row(
            escape(printable(probe.layer)),
            f"{probe.num_features:,}",
            f"{probe.l2:.0e}",
            f"{probe.train_error_rate:.4f}",
            _test_error(probe),
            f"{low:.4f}-{high:.4f}",
            *(cell(probe) for _, cell in columns),
            f"{probe.duality_gap:.1e}",
            f"{probe.num_passes:.0f}",
            f"{probe.seconds:.1f}",
        )
    return table


def _overview(run: RunRecord, columns: Sequence[TableColumn]) -> Table:
    table = plain_table("error rates of the probes" + wording.protocol(run))
    for checkpoint in run.checkpoints:
        table.add_column(f"{checkpoint.name}\ntest", justify="right")
        for name in ("train", *(name for name, _ in columns)):
            table.add_column(f"\n{name}", justify="right")
    places = {p.layer: None for checkpoint in run.checkpoints for p in checkpoint.probes}
    found = [{p.layer: p for p in checkpoint.probes} for checkpoint in run.checkpoints]
    for layer in places:
        cells: list[str] = []
        for probes in found:
            probe = probes.get(layer)
            if probe is None:
                cells += [""] * (2 + len(columns))
                continue
            cells += (_test_error(probe), f"{probe.train_error_rate:.4f}")
            cells += (cell(probe) for _, cell in columns)
        table.add_row(escape(printable(layer)), *cells)
    return table


def plain_table(title: str, first: str = "layer") -> Table:
    """Make an empty table that is narrow enough for 80 columns, with its first column."""
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=0,
    )
    table.add_column(first, overflow="fold")
    return table


def _test_error(probe: ProbeRecord) -> str:
    return f"{probe.test_error_rate:.4f}" + (" *" if probe.standing == "failed" else "")
