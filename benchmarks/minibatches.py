"""What a step of a probe trained by minibatches takes: ``python -m benchmarks.minibatches``.

Each width is trained by Adam on minibatches of 512 rows, with an early stop's held-out rows, on one
thread and on all of them. An epoch's time holds the look at the held-out rows. Processor time says
what a step takes where other work shares the machine.
"""

import os
import time
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from benchmarks.jobs import MOST_FLOATS
from linprobe.core.features import DenseFeatures
from linprobe.probes.base import Targets
from linprobe.probes.minibatch import MinibatchProbe, SGDProtocol

_WIDTHS = (128, 784, 3136, 25_088)
_CLASSES = 10
_MOST_ROWS = 60_000
_EPOCHS = 6
_PROTOCOL = SGDProtocol("adam", learning_rate=1e-3, max_epochs=_EPOCHS, patience=_EPOCHS)

HEADER = ("features", "threads", "epoch", "minibatch", "processor time")


@dataclass
class _Clock:
    """Notes when each epoch of a training ended."""

    ends: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self, stage: str, rate: float, epoch: float, loss: float, /) -> None:
        self.ends.append((time.perf_counter(), time.process_time()))

    def fastest(self) -> list[float]:
        """Seconds and processor seconds of the fastest epochs but the first."""
        return [min(b - a for a, b in pairwise(ends)) for ends in zip(*self.ends, strict=True)]


def measure(width: int, threads: int) -> list[str]:
    """Return the line of the table for a width: a sixth of the rows is held out."""
    torch.set_num_threads(threads)
    source = torch.Generator().manual_seed(0)
    num_rows = min(_MOST_ROWS, MOST_FLOATS // width)
    features = torch.randn(num_rows, width, generator=source)
    labels = torch.randint(_CLASSES, (num_rows,), generator=source)
    clock, targets = _Clock(), Targets(labels, _CLASSES, num_rows // 6)
    method = MinibatchProbe(_PROTOCOL, 1e-6, 0, "features")
    method.fit(DenseFeatures(features, owned=True), targets, clock)
    num_batches = -(-targets.num_fit // _PROTOCOL.batch_size)
    epoch, busy = clock.fastest()
    size = f"{targets.num_fit:,} x {width:,}"
    milliseconds = (1e3 * epoch / num_batches, 1e3 * busy / num_batches)
    steps = [f"{each:.3f} ms" for each in milliseconds]
    return [size, str(threads), f"{1e3 * epoch:.1f} ms", *steps]


if __name__ == "__main__":
    print(" | ".join(HEADER))
    for threads in sorted({1, os.cpu_count() or 1}):
        for width in _WIDTHS:
            print(" | ".join(measure(width, threads)), flush=True)
