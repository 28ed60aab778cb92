"""Rows of features of chosen layers, from any network and any data."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from linprobe.activations.layers import Forward, run_network, sample_dimension
from linprobe.activations.pooling import choose_reducer, random_columns
from linprobe.activations.rules import Point, Reduction
from linprobe.activations.taps import Consume, Select, Taps
from linprobe.activations.tokens import Tokens
from linprobe.data.batches import Batch
from linprobe.data.splits import Split
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.memory import is_out_of_memory
from linprobe.runtime.randomness import seeded
from linprobe.runtime.text import size_text

OnRows = Callable[[int, int], None]
"""Called as ``on_rows(done, total)`` after each batch; both count rows."""


@dataclass(frozen=True)
class Extractor:
    """How a network is run and what becomes of its activations.

    Attributes:
        network: left as it was.
        forward: runs it, where it isn't simply called.
        select: picks the tensor of a layer that gives several.
        tokens: which tokens of a sequence count.
        reduce: "auto" or a reducer, as text.
        seed: of random reducers, and of the data's own randomness.
        device: where features are kept.
    """

    network: nn.Module
    forward: Forward | None
    select: Select | None
    tokens: Tokens
    reduce: str
    seed: int
    device: torch.device

    def plan(
        self,
        names: Sequence[str],
        batch: Batch,
        num_rows: int,
        budget_bytes: float,
        *,
        skip_unfit: bool,
    ) -> tuple[list[Point], dict[str, str]]:
        """Settle how each layer becomes features, in the order of `names`.

        Args:
            names: taps.
            batch: an example.
            num_rows: rows of both splits.
            budget_bytes: of one layer's features.
            skip_unfit: leave out layers without samples or without tokens, instead of raising.

        Returns:
            The points, and for each layer that is left out why.

        Raises:
            LinprobeError: Layers that can't be probed, or don't fit the budget.
        """
        shapes: dict[str, tuple[int, ...]] = {}

        def note(name: str, tensor: Tensor) -> None:
            if tensor.is_nested or tensor.layout != torch.strided:
                raise LinprobeError(
                    f"layer {name!r} gives a nested or sparse tensor; expected a plain one: use "
                    "select, with torch.nested.to_padded_tensor say"
                )
            shapes[name] = tuple(tensor.shape)

        taps = Taps(self.network, names, self.select)
        taps.stream_during(note, self._runner(batch))
        points, left_out = [], {}
        for name in names:
            why = self._unfit(shapes[name], batch)
            if why is None:
                points.append(self._point(name, shapes[name], batch, num_rows, budget_bytes))
            elif skip_unfit:
                left_out[name] = why
            else:
                raise LinprobeError(f"layer {name!r} {why}")
        if not points:
            raise LinprobeError(f"no layer can be probed: {names[0]!r} {left_out[names[0]]}")
        return points, left_out

    def gather(
        self,
        split: Split,
        points: Sequence[Point],
        place: Tensor | None = None,
        on_rows: OnRows | None = None,
    ) -> dict[str, Tensor]:
        """Read a split once.

        Args:
            split: what to read.
            points: which features to keep.
            place: (n_rows,) int64, the row that each of the split's rows is written to.
            on_rows: progress.

        Returns:
            Name to (n_rows, n_features) float32.

        Raises:
            LinprobeError: As `plan`; or a network that fails; or a layer whose shape changes.
        """
        total = len(split.labels)
        features = {point.name: self._allocate(point, total) for point in points}
        by_name = {point.name: point for point in points}
        taps = Taps(self.network, list(by_name), self.select)
        with seeded(self.seed):
            for batch, rows in split.batches():
                spots = torch.arange(rows.start, rows.stop) if place is None else place[rows]
                keep = _keeper(features, by_name, batch, spots.to(self.device))
                taps.stream_during(keep, self._runner(batch))
                if on_rows is not None:
                    on_rows(rows.stop, total)
        return features

    def _runner(self, batch: Batch) -> Callable[[], None]:
        return lambda: run_network(self.network, batch, self.forward)

    def _unfit(self, shape: tuple[int, ...], batch: Batch) -> str | None:
        """Why a layer of this shape can't be probed; None: it can."""
        where = sample_dimension(shape, len(batch))
        if where is None:
            return (
                f"gives shape {shape} for {len(batch)} samples; expected the samples along the "
                "first dimension: use select"
            )
        sample = _sample_shape(shape, where)
        if 0 in sample:
            return f"gives shape {shape}, without features"
        if self.tokens == "all" and len(sample) != 2:
            return f"gives shape {shape}, without tokens; tokens='all' needs a row for each"
        mask = batch.mask
        if self.tokens is not None and len(sample) == 2 and mask is not None:
            if mask.shape[1] != sample[0]:
                return (
                    f"gives {sample[0]} tokens, the attention mask has {mask.shape[1]}; expected "
                    "as many: choose other layers, or select"
                )
        return None

    def _point(
        self, name: str, shape: tuple[int, ...], batch: Batch, num_rows: int, budget_bytes: float
    ) -> Point:
        where = sample_dimension(shape, len(batch)) or 0
        sample = _sample_shape(shape, where)
        rule = Reduction(self.tokens if len(sample) == 2 else None)
        inner = rule.inner_shape(sample)
        reducer = choose_reducer(self.reduce, name, inner, num_rows, budget_bytes)
        rule = Reduction(rule.tokens, reducer)
        columns = None
        if reducer.kind == "random":
            columns = random_columns(math.prod(inner), reducer.size, self.seed, name)
        return Point(name, where, rule, rule.stated(sample), reducer.width(inner), columns)

    def _allocate(self, point: Point, num_rows: int) -> Tensor:
        size = 4 * num_rows * point.width
        try:
            return torch.empty(num_rows, point.width, device=self.device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise LinprobeError(
                f"layer {point.name!r}: no memory for {size_text(size)} of features; set "
                f"memory_bytes below {size}, or use reduce='random:{max(1, point.width // 4)}'"
            ) from error


def _keeper(
    features: Mapping[str, Tensor], points: Mapping[str, Point], batch: Batch, spots: Tensor
) -> Consume:
    """Writes a tap's tensor to the rows `spots` of its features."""

    def keep(name: str, tensor: Tensor) -> None:
        rows = _rows(points[name], tensor, batch)
        features[name].index_copy_(0, spots, rows.to(spots.device, torch.float32))

    return keep


def _sample_shape(shape: tuple[int, ...], where: int) -> tuple[int, ...]:
    return shape[1:] if where == 0 else (shape[0], *shape[2:])


def _rows(point: Point, tensor: Tensor, batch: Batch) -> Tensor:
    """Rows of a batch's tensor; raises `LinprobeError` with the layer's name."""
    if tensor.ndim <= point.sample_dimension or tensor.shape[point.sample_dimension] != len(batch):
        raise LinprobeError(
            f"layer {point.name!r} gives shape {tuple(tensor.shape)} for {len(batch)} samples; "
            f"expected them along dimension {point.sample_dimension}, as in the first batch: "
            "use select"
        )
    if point.sample_dimension:
        tensor = tensor.transpose(0, 1)
    labels = batch.labels if point.reduction.tokens == "all" else None
    try:
        rows = point.reduction.apply(tensor, mask=batch.mask, labels=labels, columns=point.columns)
    except LinprobeError as error:
        raise LinprobeError(f"layer {point.name!r}: {error}") from error
    if rows.shape[1] != point.width:
        raise LinprobeError(
            f"layer {point.name!r} gives {rows.shape[1]} features, but {point.width} in the first "
            "batch; expected as many for every sample: pool it, reduce='mean', or use select"
        )
    return rows
