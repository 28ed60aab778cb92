"""``python -m benchmarks.tall``: a probe of more rows than the memory holds, streamed from disk.

This is the shape of frames, tokens or patches: millions of rows of a few hundred features, in 16
bits in a ``.npy`` file. They are drawn, a block at a time; `linprobe.fit_probes` then solves a path
of eight penalties on them in a process of its own, within ``--budget`` bytes for features (logits
come on top). Beside the time stands the least that its reads and products can take: the bytes that
it read, at the rate at which `FileRows.scan` reads this file a second time, and its passes, at the
rates of `class_logits` and `backproject` on blocks of the size that it multiplies. What that leaves
out is work too: conversion to float32 is shown beside it, the certificate's float64, softmax and
the models of the Hessian are not.

``--compare`` also fits with all rows in memory, and says what streaming costs. ``--rival`` also has
scikit-learn's lbfgs solve for the penalty that was chosen, in float32, on so many of the rows that
they take half of the budget in memory, and linprobe's solver on the same.
"""

import argparse
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.figures import outcome, passes
from benchmarks.jobs import OURS, SKLEARN, Job
from benchmarks.measure import run_capped
from benchmarks.rates import RowSeconds, read_rates, row_seconds, streamed_block
from benchmarks.tall_files import TallFile, draw_missing
from benchmarks.tall_worker import Asked, command
from linprobe.core.features import FileRows, file_rows
from linprobe.data.npy import map_npy

TARGET = 3.0  # times what reads and products take
_ALL = 1e15  # bytes, which hold anything
_IN_MEMORY = 0.5  # of the budget, for rows in float32; solvers take as much again
HEADER = (
    *("seconds", "passes", "reads", "peak GB", "gap", "l2", "status", "test error"),
    *("reads and products", "ratio", "with conversion"),
)
_RIVALS = ("solver", "rows", "l2", "time", "passes", "gap", "peak GB")


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Draw what is missing, measure rates, fit, compare, and delete what was drawn.

    Returns:
        The last streamed fit: its "cells" under `HEADER`, and its "ratio".
    """
    options = _parser().parse_args(words)
    sizes = (options.rows, options.test_rows, options.features, options.classes)
    asked = Asked(str(options.folder), sizes, options.budget, False, options.threads)
    copied = 4 * (options.rows + options.test_rows) * options.features
    if copied <= options.budget:
        raise SystemExit(
            f"the rows take {copied:,} bytes in float32, which the budget holds: nothing would be "
            f"streamed; expected a --budget below that, or more --rows"
        )
    torch.set_num_threads(options.threads)
    drawn = draw_missing(list(asked.files))
    try:
        return _measure(asked, options)
    finally:
        for file in [] if options.keep else drawn:
            file.remove()


def _measure(asked: Asked, options: argparse.Namespace) -> dict[str, Any]:
    train, _ = asked.files
    mapped = map_npy(train.path)
    rows = file_rows(mapped)
    if rows is None:
        raise SystemExit(f"{train.path} can't be read by position here; expected Linux or the like")
    print(_sizes(train, asked), end="\n\n")
    again, row = _print_rates(rows, train, asked)
    _print_row(["exact", *HEADER])
    _print_row(["---"] * (1 + len(HEADER)))
    solved: dict[str, Any] = {}
    cells: list[str] = []
    compared: list[str] = []
    for exact in {"no": (False,), "yes": (True,), "both": (False, True)}[options.exact]:
        solved = run(replace(asked, exact=exact))
        cells = solved_cells(solved, train, again, row)
        _print_row(["yes" if exact else "no", *cells])
        if options.compare:
            compared.append(comparison(solved, run(replace(asked, exact=exact, budget=_ALL))))
    for line in compared:
        print(f"\n{line}", flush=True)
    print(f"\nTarget: a ratio of at most {TARGET:g}.", flush=True)
    if options.rival:
        print()
        _print_rivals(train, asked, float(solved["l2"]), options.cap)
    ratio = solved["seconds"] / least_seconds(solved, train, again, row)
    return {"cells": cells, "ratio": ratio}


def comparison(streamed: dict[str, Any], held: dict[str, Any]) -> str:
    """Say what a fit of the same rows in memory took and found, beside that of streamed ones."""
    ratio = streamed["seconds"] / held["seconds"]
    return (
        f"In memory: {held['seconds']:.1f} s, {held['passes']:.1f} passes, peak "
        f"{held['peak_rss_bytes'] / 1e9:.2f} GB, gap {held['duality_gap']:.1e}, "
        f"l2 {held['l2']:.0e}, test error {held['test_error']:.4f}. Streaming takes {ratio:.2f} "
        f"times as long, {ratio * held['passes'] / streamed['passes']:.2f} times a pass."
    )


def run(asked: Asked) -> dict[str, Any]:
    """Fit in a process of its own; end the command where that fails."""
    many = {f"{name}_NUM_THREADS": str(asked.threads) for name in ("OMP", "MKL", "OPENBLAS")}
    # Its progress and errors are shown as they come.
    done = subprocess.run(
        command(asked), env={**os.environ, **many}, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise SystemExit(f"the fit ended with exit code {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def least_seconds(solved: dict[str, Any], train: TallFile, again: float, row: RowSeconds) -> float:
    """Sum the seconds of reads and products of a fit at measured rates.

    Args:
        solved: as `benchmarks.tall_worker.fit` gives it.
        train: the rows.
        again: bytes a second of a file that was read before.
        row: what a row takes.
    """
    products = float(solved["passes"]) * train.num_rows * row.products
    return _read_bytes(solved, train) / again + products


def solved_cells(
    solved: dict[str, Any], train: TallFile, again: float, row: RowSeconds
) -> list[str]:
    """Write a fit beside what its reads and products take; see `least_seconds`."""
    least, read = least_seconds(solved, train, again, row), _read_bytes(solved, train)
    converted = least + read / train.feature_bytes * train.num_rows * row.conversion
    return [
        f"{solved['seconds']:.1f}",
        f"{solved['passes']:.1f}",
        "unknown" if solved["read_bytes"] is None else f"{read / train.feature_bytes:.1f}",
        f"{solved['peak_rss_bytes'] / 1e9:.2f}",
        f"{solved['duality_gap']:.1e}",
        f"{solved['l2']:.0e}{' (at an end)' if solved['l2_at_edge'] else ''}",
        solved["status"],
        f"{solved['test_error']:.4f}",
        f"{least:.1f} s",
        f"{solved['seconds'] / least:.2f}",
        f"{solved['seconds'] / converted:.2f}",
    ]


def _read_bytes(solved: dict[str, Any], train: TallFile) -> float:
    """Bytes that a fit has read; at least those of its passes, where the system does not tell."""
    known = solved["read_bytes"]
    return float(2 * solved["passes"] * train.feature_bytes if known is None else known)


def _sizes(train: TallFile, asked: Asked) -> str:
    n, d, k = train.num_rows, train.num_features, train.num_classes
    return (
        f"{n:,} x {d:,} in float16, {k:,} classes: features {train.feature_bytes / 1e9:.2f} GB, "
        f"logits {4e-9 * n * k:.2f} GB in float32; budget {asked.budget / 1e9:.2f} GB; "
        f"{asked.threads} threads"
    )


def _print_rates(rows: FileRows, train: TallFile, asked: Asked) -> tuple[float, RowSeconds]:
    """Print what one read of all rows takes, by its parts; return the rates of `least_seconds`."""
    n, flops = train.num_rows, 2e-9 * train.num_features * train.num_classes
    block_rows = len(streamed_block(rows, asked.budget))
    first, again = read_rates(rows, block_rows)
    row = row_seconds(rows, asked.budget, train.num_classes)
    print(f"Blocks of {block_rows:,} rows.\n\n| of all rows | rate | seconds |\n|---|---|---|")
    for name, rate in (("first read", first), ("read again", again)):
        print(f"| {name} | {rate / 1e9:.2f} GB/s | {train.feature_bytes / rate:.2f} |")
    print(f"| conversion | {1e-6 / row.conversion:.2f} M rows/s | {n * row.conversion:.2f} |")
    for name, seconds in (("logits", row.logits), ("gradient", row.gradient)):
        print(f"| {name} | {flops / seconds:.0f} GF/s | {n * seconds:.2f} |")
    print(flush=True)
    return again, row


def _print_rivals(train: TallFile, asked: Asked, l2: float, cap: float) -> None:
    _print_row(_RIVALS)
    _print_row(["---"] * len(_RIVALS))
    for cells in rivals(train, asked, l2, cap):
        _print_row(cells)


def rivals(train: TallFile, asked: Asked, l2: float, cap: float) -> Iterator[list[str]]:
    """Solve for one penalty in memory, by linprobe's solver and scikit-learn's lbfgs.

    Args:
        train: of which the first rows are taken.
        asked: budget and threads.
        l2: the penalty.
        cap: seconds for each.
    """
    num_rows = min(train.num_rows, int(_IN_MEMORY * asked.budget / (4 * train.num_features)))
    sizes = (num_rows, train.num_features, train.num_classes)
    for name in (OURS, SKLEARN[0]):
        job = Job("tall", name, train.path.stem, *sizes, (l2,))
        found = run_capped(job, train.folder, cap, asked.threads)
        count, peak = passes(found), found.get("peak_rss_bytes")
        gaps = [point["duality_gap"] for point in found["points"]]
        yield [
            name,
            f"{num_rows:,}",
            f"{l2:.0e}",
            outcome(found),
            "" if count is None else f"{count:.1f}",
            f"{gaps[-1]:.1e}" if gaps else "",
            "" if peak is None else f"{peak / 1e9:.2f}",
        ]


def _print_row(cells: Sequence[str]) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tall", description=__doc__.partition("\n")[0]
    )
    add = parser.add_argument
    add("--rows", type=int, default=3_000_000, help="training rows")
    add("--test-rows", type=int, default=30_000)
    add("--features", type=int, default=768)
    add("--classes", type=int, default=40)
    add("--budget", type=float, default=4e9, help="memory_bytes")
    add("--folder", type=Path, default=Path("runs", "tall"), help="where the rows are drawn to")
    add("--keep", action="store_true", help="leave the rows there for the next run")
    add("--exact", choices=("no", "yes", "both"), default="no", help="solve the exact optimum")
    add("--compare", action="store_true", help="also fit with all rows in memory")
    add("--rival", action="store_true", help="also scikit-learn's lbfgs, on rows in memory")
    add("--cap", type=float, default=600.0, help="seconds for each solver of --rival")
    add("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads")
    return parser


if __name__ == "__main__":
    main()
