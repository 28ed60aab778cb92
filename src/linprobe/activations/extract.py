"""Rows of features of chosen layers, from any network and any data."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from linprobe.activations.layers import run_network
from linprobe.activations.layout import Facts, Layouts
from linprobe.activations.options import ExtractionOptions
from linprobe.activations.pooling import FLATTEN, choose_reducer, random_columns
from linprobe.activations.reading import Activation, stated_layouts
from linprobe.activations.rows import check_plain, keeper
from linprobe.activations.rules import ProbePoint, Reduction
from linprobe.activations.taps import Taps
from linprobe.core.features import FileRows, ScratchRows
from linprobe.data.batches import Batch
from linprobe.data.inputs import Source
from linprobe.data.splits import Split
from linprobe.runtime.defaults import own_defaults
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.memory import is_out_of_memory
from linprobe.runtime.randomness import seeded
from linprobe.runtime.text import layer_reason, size_text

_CHANNELS = "channels_first"  # the usual layout of what isn't a sequence
OnRows = Callable[[int, int], None]
"""Called as ``on_rows(done, total)`` after each batch; both count rows."""


@dataclass(frozen=True)
class Extractor:
    """Runs a network and turns its activations into rows of features.

    Attributes:
        network: left as it was.
        options: how it is run and what becomes of its activations.
        seed: of random reducers, and of the data's own randomness.
        device: where features are kept.
        dtype: of the network's floating inputs; None: that of its parameters.
    """

    network: nn.Module
    options: ExtractionOptions
    seed: int
    device: torch.device
    dtype: torch.dtype | None = None

    def plan(
        self,
        taps: Mapping[str, str],
        batch: Batch,
        num_rows: int,
        budget_bytes: float,
        *,
        skip_unfit: bool,
        spills: bool = False,
    ) -> tuple[list[ProbePoint], dict[str, str]]:
        """Settle how each layer becomes features, in the order of `taps`.

        Args:
            taps: layer to tap.
            batch: an example.
            num_rows: rows of both splits.
            budget_bytes: of one layer's features.
            skip_unfit: leave out layers without samples or without tokens, instead of raising.
            spills: what exceeds the budget goes to files.

        Returns:
            The points, and for each layer that is left out why.

        Raises:
            LinprobeError: Layers that can't be probed, or don't fit the budget.
        """
        seen: dict[str, tuple[tuple[int, ...], torch.dtype, Facts]] = {}
        layouts = Layouts() if self._needs_layouts else None

        def note(tap: str, tensor: Tensor) -> None:
            check_plain(tap, tensor)
            facts = layouts.of(tensor) if layouts else Facts()
            seen[tap] = tuple(tensor.shape), tensor.dtype, facts

        missed: dict[str, str] = {}

        def miss(tap: str, error: Exception) -> None:
            missed[tap] = f"fails: {layer_reason(tap, error)}"

        watched = Taps(self.network, list(taps.values()), self.options.select)
        run, on_failure = self.runner(batch, layouts), miss if skip_unfit else None
        watched.stream_during(note, run, on_failure, to_the_end=layouts is not None)
        shapes = {layer: seen[tap][0] for layer, tap in taps.items() if tap in seen}
        stated = stated_layouts(self.options.layout, shapes)
        points, left_out = [], {}
        for layer, tap in taps.items():
            if (reason := missed.get(tap)) is None:
                found = Activation(*seen[tap], batch, stated.get(layer))
                reason = found.unfit(self.options.tokens)
            if reason is None:
                point = self._point(layer, found, num_rows, budget_bytes, spills)
                points.append(replace(point, tap=tap))
            elif skip_unfit:
                left_out[layer] = reason
            else:
                raise LinprobeError(f"layer {layer!r} {reason}")
        if not points:
            layer, reason = next(iter(left_out.items()))
            raise LinprobeError(f"no layer can be probed: {layer!r} {reason}")
        return points, left_out

    def extract(
        self,
        split: Split,
        points: Sequence[ProbePoint],
        permutation: Tensor | None = None,
        on_rows: OnRows | None = None,
        room: Tensor | None = None,
        failures: dict[str, str] | None = None,
    ) -> dict[str, Tensor]:
        """Run the network over a split once.

        Args:
            split: the data.
            points: which features to keep.
            permutation: (n_rows,) int64, the row that each of the split's rows is written to.
            on_rows: progress.
            room: flat tensor of the features' dtype and device that is filled instead of new
                memory, whose first touch takes as long as the forward pass.
            failures: receives why a layer has no features, while the others go on; None: raised.

        Returns:
            Layer to (n_rows, n_features), float64 of float64 activations, else float32.

        Raises:
            LinprobeError: As `plan`; or a network that fails; or a layer whose shape changes.
        """
        features: dict[str, Tensor] = {}
        by_tap = {point.tap: point for point in points}
        for point in points:
            try:
                features[point.tap], room = self._allocate(point, len(split.labels), room)
            except LinprobeError as error:
                if failures is None:
                    raise
                _fail(by_tap, features, failures, point.tap, error)
        self._fill(split, by_tap, features, permutation, on_rows, failures)
        return {point.layer: features[tap] for tap, point in by_tap.items()}

    def extract_to(
        self,
        folder: Path,
        split: Split,
        points: Sequence[ProbePoint],
        on_rows: OnRows | None = None,
        failures: dict[str, str] | None = None,
    ) -> dict[str, FileRows]:
        """Run the network over a split once, and write features to files, row i for sample i.

        Args:
            folder: may be removed afterwards: the files are open.
            split: as `extract` takes it.
            points: as `extract` takes them.
            on_rows: as `extract` takes it.
            failures: as `extract` takes it.

        Returns:
            Layer to (n_rows, n_features), in the dtype of the activations where no mean was taken.

        Raises:
            LinprobeError: As `extract`; or a disk that is full.
        """
        by_tap = {point.tap: point for point in points}
        features = {point.tap: ScratchRows(folder, point.num_features) for point in points}
        self._fill(split, by_tap, features, None, on_rows, failures)
        return {point.layer: features[tap].finished() for tap, point in by_tap.items()}

    def _fill(
        self,
        split: Split,
        by_tap: dict[str, ProbePoint],
        features: Any,
        permutation: Tensor | None,
        on_rows: OnRows | None,
        failures: dict[str, str] | None,
    ) -> None:
        def fail(tap: str, error: Exception) -> None:
            assert failures is not None
            _fail(by_tap, features, failures, tap, error)

        taps, total = Taps(self.network, list(by_tap), self.options.select), len(split.labels)
        with seeded(self.seed):
            for batch, rows in split.batches() if by_tap else ():
                where = rows if permutation is None else permutation[rows].to(self.device)
                keep = keeper(self.network, features, by_tap, batch, where)
                taps.stream_during(keep, self.runner(batch), None if failures is None else fail)
                if len(taps.names) > len(by_tap):  # the others need not wait for what has failed
                    taps = Taps(self.network, list(by_tap), self.options.select)
                if on_rows is not None:
                    on_rows(rows.stop, total)

    @property
    def _needs_layouts(self) -> bool:
        kind = self.options.reduce.partition(":")[0]
        return self.options.tokens is not None or kind not in ("flatten", "random")

    def runner(self, batch: Batch, layouts: Layouts | None = None) -> Callable[[], None]:
        """Make what runs the network once over a batch."""
        run = partial(run_network, self.network, batch, self.options.forward, dtype=self.dtype)
        return run if layouts is None else partial(run, partial(layouts.following, self.network))

    def _point(
        self, layer: str, found: Activation, num_rows: int, budget_bytes: float, spills: bool
    ) -> ProbePoint:
        tokens = None if found.num_tokens is None else self.options.tokens
        inner = Reduction(tokens, layout=found.layout).inner_shape(found.sample)
        # Budgets are in float32 numbers; float64 ones count twice.
        budget = budget_bytes / 2 if found.dtype == torch.float64 else budget_bytes
        reducer = choose_reducer(
            *(self.options.reduce, layer, inner, num_rows, budget), spills=spills
        )
        # Where everything is kept its order is that of the tensor.
        matters = tokens is not None or (len(found.sample) > 1 and reducer.pools)
        usual = "channels_last" if len(found.sample) == 2 and tokens is not None else _CHANNELS
        rule = Reduction(tokens, reducer, found.layout if matters else None)
        rule = replace(rule, layout=None) if rule.layout == usual else rule
        columns = None
        if reducer.kind == "random":
            columns = random_columns(math.prod(inner), reducer.size, self.seed, layer)
        return ProbePoint(
            layer,
            layer,
            found.dimension or 0,
            rule,
            rule.stated(found.sample),
            reducer.width(inner),
            found.dtype,
            columns,
            mask=None if tokens is None else found.mask,
            is_guessed=matters and found.layout is None,
            is_spared=bool(found.batch.masks) and found.mask is None,
            is_scaled=tokens is not None and found.is_scaled,
        )

    def _allocate(
        self, point: ProbePoint, num_rows: int, room: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Memory for a point's features, and what is left of the room."""
        shape, size = (num_rows, point.num_features), num_rows * point.num_features
        if room is not None and len(room) >= size:
            return room[:size].view(shape), room[size:]
        try:
            return torch.empty(shape, dtype=point.kept_dtype, device=self.device), room
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            num_bytes = point.kept_dtype.itemsize * size
            raise LinprobeError(
                f"layer {point.layer!r}: no memory for {size_text(num_bytes)} of features; set "
                f"memory_bytes below {num_bytes}, or use "
                f"reduce='random:{max(1, point.num_features // 4)}'"
            ) from error


@own_defaults()
def extract_features(
    network: nn.Module,
    inputs: Tensor,
    taps: Sequence[str],
    *,
    batch_size: int = 500,
    device: torch.device | str | None = None,
    progress: OnRows | None = None,
) -> dict[str, Tensor]:
    """Run `network` over `inputs` and collect the flattened features of each tap.

    Args:
        network: left as it was, on the device that it is on.
        inputs: (n_samples, ...), moved to the network's device a batch at a time.
        taps: as `linprobe.activations.taps` writes them.
        batch_size: samples in one forward pass.
        device: where the features are kept; default: the CPU.
        progress: called after each batch.

    Returns:
        Tap to (n_samples, n_features), in the order of `taps`, float64 of float64 activations,
        else float32; row i belongs to ``inputs[i]``, flattened in the order of the tensor's
        dimensions.

    Raises:
        LinprobeError: No inputs, a batch size less than 1, an unknown tap, or a tap without a
            row for each sample or with rows whose width changes.
    """
    if len(inputs) == 0:
        raise LinprobeError("there are no inputs to extract features from; expected at least one")
    options = ExtractionOptions(reduce=str(FLATTEN), tokens=None, batch_size=batch_size)
    extractor = Extractor(network, options, 0, torch.device(device or "cpu"))
    labels = torch.zeros(len(inputs), dtype=torch.int64)
    split = Split.read(Source((inputs, labels), "train", batch_size), None)
    example = split.source.first().head(2)
    named = {tap: tap for tap in taps}
    points, _ = extractor.plan(named, example, len(inputs), math.inf, skip_unfit=False)
    return extractor.extract(split, points, on_rows=progress)


def _fail(
    by_tap: dict[str, ProbePoint],
    features: dict[str, Any],
    failures: dict[str, str],
    tap: str,
    error: Exception,
) -> None:
    """Go on without a layer."""
    layer = by_tap.pop(tap).layer
    failures[layer] = layer_reason(layer, error)
    features.pop(tap, None)
