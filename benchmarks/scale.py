"""``python -m benchmarks.scale``: estimates for shapes that no machine here holds.

Sizes, operations and the bytes that processes would send each other are computed. Passes of a path
are those that were measured (``docs/performance/benchmarks.json``) on the path of the nearest
number of features. Seconds follow from rates: of this machine, measured here on small blocks; of a
GPU, from its data sheet. They are of reads and products alone, so a solve takes longer. Nothing is
solved here.
"""

import argparse
import os
import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.figures import of_suite, passes, reached
from benchmarks.jobs import OURS
from benchmarks.measure import NAME, read
from benchmarks.rates import RowSeconds, read_rates, row_seconds, streamed_block
from linprobe.core.features import FileRows
from linprobe.runtime.text import counted, duration

_MEASURED = Path(__file__).parents[1] / "docs" / "performance" / NAME
_BUDGET = 4e9  # bytes, of which blocks take a small share
_LINE = 110  # letters
_FILE_BYTES = 2**26  # of the rows that rates are measured on
_REPEATS = 3
_PROCESSES = 8
_SAMPLE_ROWS = 8000  # of a model of the Hessian; it begins with half of them
# Numbers for each class that sums over rows have in a pass, beside the gradient: counted in solves
# of 3,000 rows, 75 with 2 classes, 190 with 40 and 120 with 200.
_SUMMED = 200
_NETWORK = 1.25e9  # bytes a second of a machine: 10 Gbit/s, assumed

# NVIDIA's data sheet of the H200 SXM; links in one direction.
_GPU = "H200"
_GPU_FLOPS, _GPU_READ, _GPU_BYTES = 67e12, 4.8e12, 141e9
_GPU_LINK, _GPU_HOST = 450e9, 64e9


@dataclass(frozen=True)
class Shape:
    """Features that people have.

    Attributes:
        name: what they are of.
        num_rows: n.
        num_features: D.
        num_classes: K.
    """

    name: str
    num_rows: int
    num_features: int
    num_classes: int

    @property
    def feature_bytes(self) -> float:
        """Bytes of the features in 16 bits."""
        return 2.0 * self.num_rows * self.num_features

    @property
    def logit_bytes(self) -> float:
        """Bytes of one array of logits in float32; a solve holds several."""
        return 4.0 * self.num_rows * self.num_classes

    @property
    def flops(self) -> float:
        """Operations of a pass: two products of 2 n D K each."""
        return 4.0 * self.num_rows * self.num_features * self.num_classes

    def sent(self, processes: int) -> dict[str, float]:
        """Bytes that each process sends in a pass, which is one step of Newton's method.

        By rings: an all-reduce sends ``2 (R - 1) / R`` of its array, a gather ``(R - 1) / R``.
        """
        d, k, share = self.num_features, self.num_classes, (processes - 1) / processes
        return {
            "gradient": 2 * share * 8 * k * d,  # float64
            "sample": share * 4 * _SAMPLE_ROWS * (d + k),  # rows and their predictions, float32
            "sums": 2 * share * 8 * _SUMMED * k,
        }


SHAPES = (
    Shape("ImageNet", 1_280_000, 2048, 1000),
    Shape("speech frames", 18_000_000, 768, 40),
    Shape("tokens of a language model", 100_000_000, 4096, 2),
)


@dataclass(frozen=True)
class Rates:
    """What this machine does with features of one shape: seconds of a row, and bytes a second."""

    row: RowSeconds
    read: float


@dataclass(frozen=True)
class MeasuredPath:
    """A path of penalties that was measured: where, its passes, and its time over its products."""

    where: str
    passes: float
    over_products: float | None


def nearest_path(measured: dict[str, Any], num_features: int) -> MeasuredPath:
    """Find linprobe's measured path on the features whose number is nearest, by its ratio."""
    records = [
        record
        for record in of_suite(measured, "path")
        if record["job"]["competitor"] == OURS and reached(record)
    ]
    if not records:
        raise SystemExit(f"{_MEASURED} has no path of penalties; expected one: run make bench")
    record = min(records, key=lambda one: abs(log(one["job"]["num_features"] / num_features)))
    job, count = record["job"], passes(record)
    assert count is not None  # ours are counted
    where = (
        f"{job['layer']}, {job['num_rows']:,} x {job['num_features']:,}, "
        f"{job['num_classes']} classes, {len(job['l2s'])} penalties"
    )
    sizes = ("num_rows", "num_features")
    for one in measured.get("products", ()):
        if all(one[name] == job[name] for name in sizes):
            products = count * (one["logits"] + one["gradient"])
            return MeasuredPath(where, count, record["seconds"] / products)
    return MeasuredPath(where, count, None)


def measure_rates(shape: Shape, folder: Path) -> Rates:
    """Measure this machine on some rows of a shape, in a file that the memory holds."""
    path, count = folder / "rows", max(1, _FILE_BYTES // (2 * shape.num_features))
    values = torch.randn(count * shape.num_features, generator=torch.Generator().manual_seed(0))
    values.half().numpy().tofile(path)
    rows = FileRows(path, (count, shape.num_features), np.dtype(np.float16))
    block_rows = len(streamed_block(rows, _BUDGET))
    # So small a file is read in an instant, which other work may disturb.
    again = max(read_rates(rows, block_rows)[1] for _ in range(_REPEATS))
    return Rates(row_seconds(rows, _BUDGET, shape.num_classes), again)


def pass_seconds(shape: Shape, rates: Rates) -> float:
    """Seconds of a pass here: two reads, two conversions, two products."""
    reads = 2 * shape.feature_bytes / rates.read
    return reads + shape.num_rows * (2 * rates.row.conversion + rates.row.products)


def shared_seconds(shape: Shape, rates: Rates, processes: int) -> float:
    """Seconds of a pass on so many machines as this one, with what they send each other."""
    sent = sum(shape.sent(processes).values())
    return pass_seconds(shape, rates) / processes + sent / _NETWORK


def gpu_seconds(shape: Shape, count: int) -> float:
    """The least seconds of a pass on so many GPUs, by their data sheet.

    Features stay in 16 bits in their memory and are read twice, logits are written and residuals
    read; where the memory holds less than that, features come from the host.
    """
    held = shape.feature_bytes + 2 * shape.logit_bytes
    moved = 2 * (shape.feature_bytes + shape.logit_bytes) / _GPU_READ
    if held > count * _GPU_BYTES:
        moved = 2 * shape.feature_bytes / _GPU_HOST
    sent = sum(shape.sent(count).values())
    return max(shape.flops / _GPU_FLOPS, moved) / count + sent / _GPU_LINK


def size_row(shape: Shape, path: MeasuredPath) -> list[str]:
    """Sizes, operations, passes, and bytes sent."""
    sent = shape.sent(_PROCESSES)
    ratio = path.over_products
    return [
        f"{shape.name}, {shape.num_rows:,} x {shape.num_features:,}, {shape.num_classes:,} classes",
        f"{shape.feature_bytes / 1e9:,.1f} GB",
        f"{shape.logit_bytes / 1e9:.1f} GB",
        f"{shape.flops:.1e}",
        f"{path.passes:.0f} ({path.where})",
        "not known" if ratio is None else f"{ratio:.1f}",
        *(f"{sent[name] / 1e6:.1f} MB" for name in ("gradient", "sample", "sums")),
    ]


def time_row(shape: Shape, path: MeasuredPath, rates: Rates) -> list[str]:
    """Rates of this machine, and the seconds that follow."""
    one_product = shape.flops / 2e9 / shape.num_rows
    seconds = (
        pass_seconds(shape, rates),
        shared_seconds(shape, rates, _PROCESSES),
        gpu_seconds(shape, 1),
        gpu_seconds(shape, _PROCESSES),
    )
    streamed = shape.feature_bytes + 2 * shape.logit_bytes > _GPU_BYTES
    paths = [seconds_text(path.passes * one) for one in seconds]
    paths[2] += " (from the host)" if streamed else ""
    return [
        shape.name,
        f"{rates.read / 1e9:.1f} GB/s",
        f"{2e-9 * shape.num_features / rates.row.conversion:.1f} GB/s",
        f"{one_product / rates.row.logits:.0f} GF/s",
        f"{one_product / rates.row.gradient:.0f} GF/s",
        seconds_text(seconds[0]),
        *paths,
    ]


def seconds_text(seconds: float) -> str:
    """Write seconds: "0.42 s", "3 min 20 s"."""
    return f"{seconds:.2g} s" if seconds < 10 else duration(seconds)


_SIZES = (
    *("shape", "features, 16 bits", "logits, float32", "operations of a pass"),
    *("passes of a path, as measured on", "its time over that of its products"),
    *("sent a pass: gradient", "sample", "sums"),
)
_TIMES = (
    *("shape", "read", "conversion", "logits", "gradient", "a pass here"),
    *("a path here", f"on {_PROCESSES} such machines"),
    *(f"on one {_GPU}", f"on {_PROCESSES} {_GPU}"),
)


def notes(threads: int) -> str:
    """Say what the tables hold, and what they leave out."""
    size = f"{_FILE_BYTES / 2**20:.0f} MiB"
    paragraphs = (
        f"Sent: by each of {_PROCESSES} processes that share the rows out, in a pass, which is one "
        "step of Newton's method: the gradient in float64 (all-reduce), a sample of up to "
        f"{_SAMPLE_ROWS:,} rows with their predictions in float32 (gather), and sums of a few "
        "numbers for each class.",
        "Read, conversion (to float32, standardised), logits and gradient: rates measured on this "
        f"machine, {counted(threads, 'thread')}, on {size} of rows in the page cache. A disk that "
        "is slower than that makes passes longer. A pass is the sum of two reads, two conversions "
        f"and two products; several machines also send, at {8e-9 * _NETWORK:.0f} Gbit/s (assumed). "
        "These are least times. Softmax, line searches and models of the Hessian come on top: the "
        "first table says how many times as long as its products the path took where its passes "
        "were measured. So do standardisation, the refit and the certificates, which that path had "
        "not. Nothing was run on several machines.",
        f"{_GPU}: from numbers of its data sheet, not measured: {_GPU_READ / 1e12:.1f} TB/s of "
        f"memory, {_GPU_FLOPS / 1e12:.0f} TFLOP/s in float32, {_GPU_BYTES / 1e9:.0f} GB, links of "
        f"{_GPU_LINK / 1e9:.0f} GB/s to other GPUs and {_GPU_HOST / 1e9:.0f} GB/s to the host. The "
        "longer of operations and bytes counts, with features kept in 16 bits (linprobe keeps "
        "those in float32 that it doesn't stream). Nothing was run on a GPU.",
    )
    return "\n\n".join(textwrap.fill(text, _LINE) for text in paragraphs)


def main(words: Sequence[str] | None = None) -> None:
    """Print both tables, and notes on them."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads")
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads)
    measured = read(_MEASURED)
    paths = [nearest_path(measured, shape.num_features) for shape in SHAPES]
    _print_table(_SIZES, [size_row(*pair) for pair in zip(SHAPES, paths, strict=True)])
    with tempfile.TemporaryDirectory() as folder:
        rates = [measure_rates(shape, Path(folder)) for shape in SHAPES]
    _print_table(_TIMES, [time_row(*three) for three in zip(SHAPES, paths, rates, strict=True)])
    print(notes(options.threads))


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for cells in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(cells)} |")
    print(flush=True)


if __name__ == "__main__":
    main()
