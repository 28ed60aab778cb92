"""Fits one probe of streamed features in a process of its own: ``python -m benchmarks.tall``'s.

``python -m benchmarks.tall_worker JSON`` prints what came of it as its last line.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import linprobe
from benchmarks.jobs import PATH
from benchmarks.tall_files import TallFile
from linprobe.records.environment import peak_rss_bytes

_COUNTERS = Path("/proc/self/io")
_LAYER = "tall"


@dataclass(frozen=True)
class Asked:
    """One fit.

    Attributes:
        folder: of both files.
        sizes: training rows, test rows, features, classes.
        budget: `memory_bytes`.
        exact: as `ProbeConfig` takes it.
        threads: CPU threads.
    """

    folder: str
    sizes: tuple[int, int, int, int]
    budget: float
    exact: bool
    threads: int

    @property
    def files(self) -> tuple[TallFile, TallFile]:
        """Training and test split."""
        train, test, *rest = self.sizes
        return (
            TallFile(Path(self.folder), "train", train, *rest),
            TallFile(Path(self.folder), "test", test, *rest),
        )


def fit(asked: Asked) -> dict[str, Any]:
    """Fit the probe.

    Returns:
        seconds of the whole call, read_bytes of all files meanwhile (None: the system does not
        tell), peak_rss_bytes of the process, and passes, duality_gap, l2, l2_at_edge, status and
        test_error of the probe.
    """
    train, test = asked.files
    labels, test_labels = train.labels(), test.labels()
    before, begun = read_bytes(), time.perf_counter()
    report = linprobe.fit_probes(
        {_LAYER: train.path},
        labels,
        ({_LAYER: test.path}, test_labels),
        num_classes=asked.sizes[-1],
        memory_bytes=asked.budget,
        method=linprobe.ProbeConfig(l2_path=PATH, exact=asked.exact),
        progress=True,
    )
    seconds, after = time.perf_counter() - begun, read_bytes()
    record = report[_LAYER].record
    return {
        "seconds": seconds,
        "read_bytes": None if before is None or after is None else after - before,
        "peak_rss_bytes": peak_rss_bytes(),
        "passes": record.num_passes,
        "duality_gap": record.duality_gap,
        "l2": record.l2,
        "l2_at_edge": record.l2_at_edge,
        "status": record.status,
        "test_error": record.test_error_rate,
    }


def read_bytes() -> int | None:
    """Count the bytes that this process has read from files so far, from memory or disk."""
    if not _COUNTERS.exists():
        return None
    counters = dict(line.split(": ") for line in _COUNTERS.read_text().splitlines())
    return int(counters["rchar"])


def main(text: str) -> None:
    """Fit what a JSON object of `Asked` describes, after something tiny that loads modules."""
    given = json.loads(text)
    asked = Asked(**{**given, "sizes": tuple(given["sizes"])})
    torch.set_num_threads(asked.threads)
    few = torch.arange(20.0)[:, None], torch.arange(20) % 2
    linprobe.fit_probes({"few": few[0]}, few[1], ({"few": few[0]}, few[1]), progress=False)
    print(json.dumps(fit(asked)))


def command(asked: Asked) -> list[str]:
    """Write the command of a process that fits what is asked."""
    return [sys.executable, "-m", "benchmarks.tall_worker", json.dumps(asdict(asked))]


if __name__ == "__main__":
    main(sys.argv[1])
