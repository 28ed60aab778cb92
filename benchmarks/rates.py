"""Rates of this machine that bound a pass over features that are streamed from a file."""

import os
import time
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.machine import best_of
from linprobe.core.features import (
    FileRows,
    RowStore,
    Standardisation,
    StreamedFeatures,
    TensorRows,
)
from linprobe.core.linalg import backproject, class_logits

_HELD_BYTES = 2**26  # of raw rows, for rates that need no file


@dataclass(frozen=True)
class RowSeconds:
    """What one row of features takes, in seconds.

    Attributes:
        logits: its product with a weight.
        gradient: its product with a residual.
        conversion: to float32, standardised; once for each product.
    """

    logits: float
    gradient: float
    conversion: float

    @property
    def products(self) -> float:
        """Both products: what a pass takes of a row."""
        return self.logits + self.gradient


def row_seconds(store: RowStore, budget: float, num_classes: int) -> RowSeconds:
    """Measure products and conversion on blocks of the size that `StreamedFeatures` multiplies.

    Args:
        store: rows as they are kept; the first ones are taken.
        budget: bytes that `StreamedFeatures` may take.
        num_classes: K.
    """
    row_bytes = store.shape[1] * store.dtype.itemsize
    count = min(store.shape[0], max(1, _HELD_BYTES // row_bytes))
    held = TensorRows(store.gather(torch.arange(count)))
    block = streamed_block(held, budget)
    num_rows, num_features = block.shape
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(num_classes, num_features, generator=draw)
    residuals = torch.randn(num_classes, num_rows, generator=draw)
    # Any map takes as long as that of the features.
    same = Standardisation(torch.zeros(num_features).double(), 1.0, torch.ones(num_features))
    mapped = StreamedFeatures(held, budget).mapped(same)
    return RowSeconds(
        logits=best_of(lambda: class_logits(block, weight)) / num_rows,
        gradient=best_of(lambda: backproject(residuals, block)) / num_rows,
        conversion=best_of(lambda: deque(mapped.parts(count), maxlen=0)) / count,
    )


def streamed_block(store: RowStore, budget: float) -> Tensor:
    """Give the first rows as `StreamedFeatures` multiplies them: so many, and in that dtype."""
    features = StreamedFeatures(store, budget)
    return next(iter(features.parts(features.num_rows)))[1].clone()


def read_rates(rows: FileRows, block_rows: int) -> tuple[float, float]:
    """Read all rows in blocks by `FileRows.scan`, twice: bytes a second.

    The system is asked first to forget what it holds of the file, so that the first read comes from
    the disk where it can do so; the second one comes from memory as far as there is room.
    """
    starts = range(0, len(rows), block_rows)
    spans = [(start, min(start + block_rows, len(rows))) for start in starts]
    size = len(rows) * rows.shape[1] * rows.dtype.itemsize
    forget(rows.path)
    rates = []
    for _ in range(2):
        begun = time.perf_counter()
        deque(rows.scan(spans), maxlen=0)
        rates.append(size / (time.perf_counter() - begun))
    return rates[0], rates[1]


def forget(path: str) -> None:
    """Ask the system to keep no copy of a file in memory, where it can be asked."""
    if not hasattr(os, "posix_fadvise"):
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(number)
