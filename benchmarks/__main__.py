"""``python -m benchmarks``: measure what is not measured yet, then write the page."""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import few_rows, label_sets, products, tall
from benchmarks.features import FeatureFiles
from benchmarks.figures import reached
from benchmarks.jobs import OURS, Job, all_jobs, quick_jobs
from benchmarks.machine import describe, fastest
from benchmarks.measure import NAME, read, run_capped, write
from benchmarks.page import write_page

_LEAST_CAP = 5.0  # seconds
# Times linprobe's time at which others are stopped: a little more than the page's targets ask for.
_TIMES, _MOST_TIMES = {"path": 21.0, "few": 21.0}, 12.0


def main(arguments: list[str] | None = None) -> None:
    """Run the command; see ``--help``."""
    options = _parser().parse_args(arguments)
    folder = Path("runs/bench-quick" if options.quick else "runs/bench")
    options.out = options.out or folder
    # A check overwrites no result.
    options.docs = options.docs or (folder if options.quick else Path("docs"))
    path = options.out / NAME
    measured = read(path)
    if options.note is not None:
        measured["note"] = options.note
        write(path, measured)
    if not options.page:
        files = FeatureFiles(options.out / "features", options.network, options.dataset)
        before = measured["machine"]
        measured["machine"] = before | fastest(describe(options.threads), before)
        if not options.quick:
            _measure_parts(measured, options)
            write(path, measured)
        if options.cuda:
            measured["machine"]["cuda"] = describe(options.threads, "cuda")
        deadline = time.monotonic() + options.budget
        for job in _chosen(options, measured["results"]):
            if time.monotonic() > deadline:
                print("the time budget is spent; the same command goes on from here", flush=True)
                break
            files.prepare(job.layer, job.num_rows)
            cap = _cap(job, options, measured["results"])
            result = run_capped(job, files.folder, cap, options.threads)
            result["load_average"] = os.getloadavg()[0]
            measured["results"][job.key] = result
            write(path, measured)
            seconds = result["seconds"]
            shown = "-" if seconds is None else f"{seconds:.2f} s"
            print(f"{job.key}: {result['status']} {shown} {result['reason'] or ''}", flush=True)
        write(path, measured)
    write_page(measured, options.docs)
    print(f"{options.docs / 'performance.md'}")


def _measure_parts(measured: dict[str, Any], options: argparse.Namespace) -> None:
    """Measure what is no job of one solver: by its key in the JSON, which names its suite too."""
    parts: dict[str, Callable[[], object]] = {
        "products": products.measure,
        "few_rows": few_rows.measure,
        "label_sets": lambda: list(label_sets.measure()),
        "tall": lambda: tall.main(
            ["--folder", str(options.out / "tall"), "--threads", str(options.threads)]
        ),
    }
    for name, measure in parts.items():
        wanted = options.suite in (None, name) and not options.only
        if wanted and (options.again or name not in measured):
            measured[name] = measure()
            print(f"{name}: measured", flush=True)


def _chosen(options: argparse.Namespace, done: dict[str, object]) -> list[Job]:
    devices = ("cpu", "cuda") if options.cuda else ("cpu",)
    jobs = quick_jobs() if options.quick else all_jobs(options.rows, devices)
    wanted = [
        job
        for job in jobs
        if all(word in job.key for word in options.only) and options.suite in (None, job.suite)
    ]
    return [job for job in wanted if options.again or job.key not in done]


def _cap(job: Job, options: argparse.Namespace, done: dict[str, Any]) -> float:
    """Seconds on the job's clock: at most so many times as long as linprobe took on its problem."""
    most = float(options.cap * len(job.l2s))
    ours = done.get(replace(job, competitor=OURS).key)
    if job.competitor == OURS or ours is None or not reached(ours):
        return most
    times = options.times or _TIMES.get(job.suite, _MOST_TIMES)
    return min(most, max(_LEAST_CAP, times * float(ours["seconds"])))


def _parser() -> argparse.ArgumentParser:
    import torch

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure linprobe's solver against others; write docs/performance.md.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="some tiny jobs: a check, not a result")
    add("--out", type=Path, default=None, help="features and results (default runs/bench)")
    add("--docs", type=Path, default=None, help="where the page goes (default docs)")
    add("--network", type=Path, default=None, help="trained ConvNet; default: train one")
    add("--dataset", default="mnist", help="as linprobe takes it")
    add("--rows", type=int, default=60_000, help="training samples")
    add("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads")
    add("--cap", type=float, default=120.0, help="seconds for one solver and penalty")
    add("--times", type=float, help="stop others after so many times our time (12; paths 21)")
    add("--budget", type=float, default=float("inf"), help="start no job after these seconds")
    add("--only", action="append", default=[], help="jobs whose name has this; may be repeated")
    add("--suite", help="one part of the page: cold, path, few, few_rows, ...")
    add("--again", action="store_true", help="measure also what has been measured")
    add("--note", help="what readers of the page must know of this run; kept in the JSON")
    add("--page", action="store_true", help="measure nothing, write the page")
    add("--cuda", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    return parser


if __name__ == "__main__":
    main()
