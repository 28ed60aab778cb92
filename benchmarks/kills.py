"""Kill a small run at random moments, take it up again, and compare what comes of it.

``python -m benchmarks.kills --kills 50`` ends with a line for each difference, and how many runs
gave the results.json of one that was not killed.
"""

import argparse
import json
import multiprocessing
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from linprobe.experiments.figure8 import Figure8
from linprobe.experiments.session import run
from linprobe.experiments.settings import Settings
from linprobe.probes.config import ProbeConfig

_LOADED = ("matplotlib.pyplot", "plotly.graph_objects", "linprobe.experiments.session")


def content(folder: Path) -> dict[str, Any]:
    """Read what results.json says, times and memory aside."""
    found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    del found["seconds"], found["peak_rss_bytes"]
    for checkpoint in found["checkpoints"]:
        del checkpoint["stages"]
        for probe in checkpoint["probes"]:
            del probe["seconds"]
    return found


def small_run(out: Path) -> None:
    """Train and probe a network of two layers at three checkpoints, on 1,000 images."""
    run(Figure8(depth=2), Settings(out, quick=True, method=ProbeConfig(l2_path=(1e-1, 1e-2))))


def main(kills: int, seed: int) -> None:
    """Kill so many processes by SIGKILL, and print what became of their runs."""
    processes, draws = multiprocessing.get_context("forkserver"), random.Random(seed)
    processes.set_forkserver_preload(list(_LOADED))

    def killed(folder: Path, seconds: float | None) -> bool:
        process = processes.Process(target=small_run, args=(folder,))
        process.start()
        process.join(seconds)
        process.kill()
        process.join()
        if process.exitcode not in (0, -9):
            raise SystemExit(f"a run ended with exit code {process.exitcode}")
        return process.exitcode != 0

    with tempfile.TemporaryDirectory() as inside:
        folders, equal, done = Path(inside), 0, 0
        killed(folders / "warm", None)
        started = time.perf_counter()
        killed(folders / "whole", None)
        longest = time.perf_counter() - started
        number = 0
        while done < kills:
            number += 1
            folder = folders / str(number)
            while done < kills and killed(folder, draws.uniform(0, longest)):
                done += 1
            killed(folder, None)
            same = content(folder) == content(folders / "whole")
            equal += same
            print(
                f"run {number}, {done} kills so far: {'equal' if same else 'DIFFERS'}", flush=True
            )
    print(
        f"{done} kills at random moments of {number} runs of {longest:.1f} s: {equal} gave the "
        f"results of a run that was not killed, {number - equal} others"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
