"""Make an activation one row of features a sample: flatten, pool, or draw coordinates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.randomness import generator
from linprobe.runtime.text import size_text

AUTO = "auto"
_EXPECTED = "'auto', 'flatten', 'mean', 'max', 'pool:K' or 'random:M' with K and M at least 1"


@dataclass(frozen=True)
class Reducer:
    """A rule that makes a row of features of the part of an activation that belongs to a sample.

    Attributes:
        kind: "flatten" keeps everything; "mean" and "max" are over all dimensions but the first
            of a sample (its channels); "pool" averages into at most `size` cells along each of
            these; "random" keeps `size` coordinates of the flattened sample.
        size: K of ``pool:K``, M of ``random:M``; else 0.
    """

    kind: str
    size: int = 0

    def __str__(self) -> str:
        return f"{self.kind}:{self.size}" if self.size else self.kind

    @classmethod
    def parse(cls, text: str) -> "Reducer":
        """Read what `str` writes.

        Raises:
            LinprobeError: Another text.
        """
        kind, colon, size = str(text).partition(":")
        if kind in ("pool", "random") and size.isdecimal() and int(size):
            return cls(kind, int(size))
        if not colon and kind in ("flatten", "mean", "max"):
            return cls(kind)
        raise LinprobeError(f"reduce is {text!r}; expected {_EXPECTED}")

    @property
    def pools(self) -> bool:
        """Tell whether places are put together."""
        return self.kind in ("mean", "max", "pool")

    def width(self, shape: Sequence[int]) -> int:
        """Features of a sample of this shape, without the samples' dimension."""
        whole = math.prod(shape)
        if self.kind == "random":
            return min(self.size, whole)
        if self.kind == "flatten" or len(shape) < 2:
            return whole
        if self.kind == "pool":
            return shape[0] * math.prod(min(self.size, extent) for extent in shape[1:])
        return shape[0]

    def apply(self, values: Tensor, columns: Tensor | None = None) -> Tensor:
        """Reduce.

        Args:
            values: (n_samples, ...), any real dtype.
            columns: as `random_columns` gives them; for kind "random" only.

        Returns:
            (n_samples, n_features); float32 or float64 where something was averaged.

        Raises:
            LinprobeError: Too many dimensions to pool.
        """
        if self.kind == "random":
            assert columns is not None
            return values.flatten(1)[:, columns.to(values.device)]
        if self.kind == "flatten" or values.ndim < 3:
            return values.flatten(1)
        if self.kind == "max":
            return values.flatten(2).amax(2)
        values = values if values.dtype == torch.float64 else values.float()
        if self.kind == "mean":
            return values.flatten(2).mean(2)
        if values.ndim > 5:
            raise LinprobeError(
                f"a sample of shape {tuple(values.shape[1:])} can't be pooled; expected 2 to 4 "
                "dimensions: use reduce='mean' or 'random:M'"
            )
        pool = getattr(torch.nn.functional, f"adaptive_avg_pool{values.ndim - 2}d")
        pooled: Tensor = pool(values, [min(self.size, n) for n in values.shape[2:]])
        return pooled.flatten(1)


FLATTEN = Reducer("flatten")


def random_columns(width: int, size: int, seed: int, layer: str) -> Tensor:
    """Which of `width` coordinates ``random:M`` keeps: int64, rising, drawn anew for each layer."""
    drawn = torch.randperm(width, generator=generator(seed, f"columns of {layer}"))
    return drawn[:size].sort().values


def choose_reducer(
    reduce: str,
    layer: str,
    shape: Sequence[int],
    num_rows: int,
    budget_bytes: float,
    *,
    spills: bool = False,
) -> Reducer:
    """The reducer of one layer.

    Under "auto" the layer is flattened if that fits the budget, else pooled into as many cells
    as fit, at the coarsest into one.

    Args:
        reduce: "auto", or what `Reducer.parse` reads.
        layer: its name, for messages.
        shape: of one sample.
        num_rows: rows of features, all splits together.
        budget_bytes: what the layer's float32 features may take.
        spills: whether what exceeds that may go to files.

    Returns:
        "flatten" too where another reducer would keep everything.

    Raises:
        LinprobeError: The features would not fit; the message names a reducer that would.
    """
    wanted = FLATTEN if reduce == AUTO else Reducer.parse(reduce)
    tried = [wanted]
    if reduce == AUTO and len(shape) in (2, 3, 4):
        tried += [Reducer("pool", k) for k in range(max(shape[1:], default=1) - 1, 0, -1)]
    for reducer in tried:
        if 4 * reducer.width(shape) * num_rows <= budget_bytes:
            return FLATTEN if reducer.width(shape) == math.prod(shape) else reducer
    if spills:
        return FLATTEN if tried[-1].width(shape) == math.prod(shape) else tried[-1]
    width = wanted.width(shape)
    room = int(budget_bytes // (4 * num_rows))
    raise LinprobeError(
        f"layer {layer!r}: {num_rows:,} rows of {width:,} features (reduce={str(wanted)!r}) take "
        f"{size_text(4 * width * num_rows)}, the memory budget is {size_text(budget_bytes)}; "
        + (f"use reduce='random:{room}', or " if room else "use fewer samples, or ")
        + "raise memory_bytes"
    )
