"""``python -m benchmarks.processes``: several processes against one, on the same cores.

The rows of one layer are drawn (many classes, as of a vision transformer). One process solves it
with all threads; then several do, with as many threads in all, that share its rows
(``distribute="rows"``), or among which as many layers as there are processes are dealt
(``distribute="layers"``). Runs take turns, so that other work on the machine meets all alike. On
one machine sharing can't gain: what is measured is what it costs.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.drawn import VIT, vit
from linprobe.runtime.waiting import let_threads_rest

_HEAD = ("deals", "processes", "seconds", "of one process", "passes", "gap", "P")


def main(words: Sequence[str] | None = None) -> None:
    """Measure in turns, and print a line for each way."""
    options = _parser().parse_args(words)
    if options.worker:
        print(json.dumps(fit(options)), flush=True)
        return
    runs: dict[tuple[str, int], list[dict[str, float]]] = {}
    for _ in range(options.rounds):
        for deals in options.ways.split(","):
            for processes in (1, options.processes):
                runs.setdefault((deals, processes), []).append(_measured(options, deals, processes))
    print(
        f"{options.rows:,} x {options.features}, {options.classes} classes, "
        f"{_threads()} threads in all, {options.rounds} rounds, medians\n"
    )
    for cells in (_HEAD, ["---"] * len(_HEAD)):
        print(f"| {' | '.join(cells)} |")
    for (deals, processes), found in runs.items():
        print(f"| {' | '.join(_cells(deals, processes, found, runs[deals, 1]))} |", flush=True)


def fit(options: argparse.Namespace) -> dict[str, float]:
    """Fit this process's part, and say how it went."""
    import linprobe

    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    x, y = vit(VIT[0], options.rows, options.features, options.classes)
    held, count = options.rows // 10, options.processes
    train, test = slice(held, None), slice(held)
    if options.deals == "rows":
        train = slice(*(held + (options.rows - held) * i // size for i in (rank, rank + 1)))
        test, count = slice(*(held * i // size for i in (rank, rank + 1))), 1
    layers = {f"layer{i}": x[train] for i in range(count)}
    tests = {name: x[test] for name in layers}
    begun = time.perf_counter()
    report = linprobe.fit_probes(
        *(layers, y[train], (tests, y[test])), distribute=options.deals, progress=False
    )
    record = report["layer0"].record
    return {
        "seconds": time.perf_counter() - begun,
        "passes": record.num_passes,
        "gap": record.duality_gap,
        "objective": record.objective,
    }


def _measured(options: argparse.Namespace, deals: str, processes: int) -> dict[str, float]:
    """Run all processes of one way, and give the first one's account, with the slowest's time."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    common["OMP_NUM_THREADS"] = max(1, _threads() // processes)
    words = [sys.executable, "-m", "benchmarks.processes", "--worker", "--deals", deals]
    words += [f"--{name}={getattr(options, name)}" for name in ("rows", "features", "classes")]
    words += [f"--processes={options.processes}"]
    started = []
    for rank in range(processes):
        given = {name: str(value) for name, value in {**common, "RANK": rank}.items()}
        environment = {**os.environ, **given}
        let_threads_rest(environment)
        started.append(subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True))
    found: list[dict[str, float]] = []
    for process in started:
        printed, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"a process ended with exit code {process.returncode}")
        found.append(json.loads(printed.splitlines()[-1]))
    first: dict[str, float] = found[0]
    return {**first, "seconds": max(one["seconds"] for one in found)}


def _cells(
    deals: str, processes: int, found: list[dict[str, float]], alone: list[dict[str, float]]
) -> list[str]:
    pairs = zip(found, alone, strict=True)
    ratio = statistics.median(some["seconds"] / one["seconds"] for some, one in pairs)
    middle: dict[str, Any] = {key: statistics.median(one[key] for one in found) for key in found[0]}
    return [
        *(deals, str(processes), f"{middle['seconds']:.1f}", f"{ratio:.2f}"),
        *(f"{middle['passes']:.1f}", f"{middle['gap']:.1e}", f"{middle['objective']:.9f}"),
    ]


def _threads() -> int:
    return len(os.sched_getaffinity(0))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.processes", description=__doc__.partition("\n")[0]
    )
    add = parser.add_argument
    add("--rows", type=int, default=60_000, help="training and test rows")
    add("--features", type=int, default=256)
    add("--classes", type=int, default=10)
    add("--processes", type=int, default=2)
    add("--rounds", type=int, default=2)
    add("--ways", default="rows,layers", help="what is dealt")
    add("--worker", action="store_true", help=argparse.SUPPRESS)
    add("--deals", choices=("rows", "layers"), default="rows", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
