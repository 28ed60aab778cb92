"""Time two checkouts of linprobe on the same layers, in turns, through the public `fit_probes`.

    git worktree add ../before COMMIT
    python -m benchmarks.pairwise ../before [--layers layer8,conv2_postpool] [--pairs 5]

Every run is a process of its own with 50,000 training and 10,000 test rows of MNIST features (of a
convolutional network after one minibatch, and of the untrained deep network), the
whole protocol (path, refit, certificate, evaluation). A pair is this checkout and the other, the
first of them changing from pair to pair, so that other work on the machine meets both alike.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.features import FeatureFiles
from linprobe.runtime.waiting import let_threads_rest

LAYERS = ("layer8", "fc1_postact", "conv2_postpool")
_ROWS, _TRAIN = 60_000, 50_000

_CHILD = """
import json, sys, time
import numpy as np
import linprobe
folder, layer, rows, train = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
x = np.load(f"{folder}/{layer}.npy", mmap_mode="r")[:rows]
y = np.load(f"{folder}/labels.npy")[:rows]
begun = time.perf_counter()
report = linprobe.fit_probes(
    {layer: x[:train]}, y[:train], ({layer: x[train:]}, y[train:]), progress=False
)
record = report[layer].record
print(json.dumps({
    "wall": time.perf_counter() - begun, "probe": record.seconds, "l2": record.l2,
    "error": record.test_error_rate, "gap": record.duality_gap,
    # Not ru_maxrss, which starts at that of the parent process.
    "peak": int(next(s for s in open("/proc/self/status") if s.startswith("VmHWM")).split()[1]),
}))
"""


def measure(source: Path, folder: Path, layer: str) -> dict[str, float]:
    """Fit the probe of a layer by the linprobe below `source`, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(source.resolve())}
    let_threads_rest(environment)
    words = [sys.executable, "-c", _CHILD, str(folder), layer, str(_ROWS), str(_TRAIN)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Print a line a layer: ratios of this checkout to the other."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("other", type=Path, help="folder of the other checkout")
    parser.add_argument("--layers", default=",".join(LAYERS))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("runs", "pairwise"))
    options = parser.parse_args()
    sources = {"this": Path(__file__).parents[1] / "src", "other": options.other / "src"}
    for layer in options.layers.split(","):
        FeatureFiles(options.folder, epochs=0).prepare(layer, _ROWS)
        runs: dict[str, list[dict[str, float]]] = {"this": [], "other": []}
        for pair in range(options.pairs):
            for name in sorted(sources, reverse=bool(pair % 2)):
                runs[name].append(measure(sources[name], options.folder, layer))
        print(layer, *_ratios(runs), _same(runs), sep="  ", flush=True)


def _ratios(runs: dict[str, list[dict[str, float]]]) -> list[str]:
    """Ratio of each pair's seconds and of the peaks: the median, and the range."""
    words = []
    for key in ("probe", "wall", "peak"):
        pairs = zip(runs["this"], runs["other"], strict=True)
        ratios = [this[key] / other[key] for this, other in pairs]
        middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
        words.append(f"{key} {middle:.3f} ({low:.3f} to {high:.3f})")
    seconds = statistics.median(run["probe"] for run in runs["other"])
    return [*words, f"other: {seconds:.1f} s"]


def _same(runs: dict[str, list[dict[str, float]]]) -> str:
    keys = ("l2", "error", "gap")
    results = {tuple(run[key] for key in keys) for both in runs.values() for run in both}
    return "same l2, error and gap" if len(results) == 1 else f"results differ: {sorted(results)}"


if __name__ == "__main__":
    main()
