"""Features of layers of a network, which is run over the data for as many as the memory holds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from linprobe.activations.extract import Extractor
from linprobe.activations.groups import plan_groups
from linprobe.activations.rules import ProbePoint
from linprobe.activations.widened import in_float64
from linprobe.core.features import (
    DenseFeatures,
    FileRows,
    StreamedFeatures,
    born_dtype,
    check_space,
    scratch_folder,
)
from linprobe.data.splits import Split
from linprobe.pipeline.array_layers import left_by_logits
from linprobe.pipeline.engine import LayerGroup
from linprobe.pipeline.layer_fit import LayerFeatures
from linprobe.pipeline.meter import Meter
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.memory import give_back_freed
from linprobe.runtime.threads import thread_count

Rows = Tensor | StreamedFeatures

_BORN_ROWS = 256  # that tell which dtype values had before


class NetworkLayers:
    """Layers of a network, run over both splits for each group that the memory holds.

    Args:
        extractor: runs the network.
        splits: train and test.
        points: layers and how they become features.
        permutation: (n_train,) int64, the row that each training row is written to; None: its own.
        budget_bytes: features held at a time.
        centre: subtract the training mean of float64 features and round what varies to float32.
        rereads: layers that need it may be read again, in float64.
        reuse_memory: extract every group into the same memory, on a CPU.
        scratch: folder that layers larger than the budget are written to for the time that they
            are needed; None: they are held in memory nonetheless.
        strict: raise when a layer fails, instead of going on with the others.
        num_classes: K, whose logits count as features do where these are streamed.
    """

    def __init__(
        self,
        extractor: Extractor,
        splits: Sequence[Split],
        points: Sequence[ProbePoint],
        permutation: Tensor | None,
        budget_bytes: float,
        *,
        centre: bool = False,
        rereads: bool = False,
        reuse_memory: bool = False,
        scratch: Path | None = None,
        strict: bool = False,
        num_classes: int = 0,
    ) -> None:
        self._scratch, self._num_classes = scratch, num_classes
        self._extractor, self._splits, self._permutation = extractor, splits, permutation
        self._points = {point.layer: point for point in points}
        self._centre, self._strict, self._budget = centre, strict, budget_bytes
        self._rereads = rereads
        self._itemsize = max(point.kept_dtype.itemsize for point in points)
        self._reuse = reuse_memory and extractor.device.type == "cpu"

    @property
    def num_features(self) -> dict[str, int]:
        """Layers in order, with the number of features of each."""
        return {layer: point.num_features for layer, point in self._points.items()}

    @property
    def num_workers(self) -> int:
        """Number of narrow layers that may be fitted side by side."""
        return thread_count(self._extractor.device)

    @property
    def rereads(self) -> bool:
        """See `LayerSource`."""
        return self._rereads

    def in_float64(self, layers: Sequence[str]) -> tuple["NetworkLayers | None", dict[str, str]]:
        """See `LayerSource`."""
        points, example = [self._points[layer] for layer in layers], self._splits[0].source.first()
        try:
            extractor, found, failures = in_float64(self._extractor, points, example)
        except LinprobeError as error:
            return None, dict.fromkeys(layers, str(error))
        if not found:
            return None, failures
        source = NetworkLayers(
            *(extractor, self._splits, found, self._permutation, self._budget),
            centre=True,
            reuse_memory=self._reuse,
            scratch=self._scratch,
            strict=self._strict,
            num_classes=self._num_classes,
        )
        return source, failures

    def all_in_float64(self) -> "NetworkLayers":
        """Give all layers as they are in float64; raise `LinprobeError` where that can't be."""
        if all(point.dtype == torch.float64 for point in self._points.values()):
            return self
        source, failures = self.in_float64(list(self._points))
        for layer, why in failures.items():
            raise LinprobeError(
                f"layer {layer!r} can't be read in float64: {why}; leave float64 out, so that "
                "layers are read so which need it and can be"
            )
        assert source is not None
        return source

    def groups(self, meter: Meter, layers: Sequence[str]) -> Iterator[LayerGroup]:
        """Extract the features of one group after the other."""
        widths, num_rows = self.num_features, self._num_rows
        wanted = {layer: widths[layer] for layer in layers}
        groups = plan_groups(wanted, num_rows, self._budget, self._itemsize)
        held = [group for group in groups if not self._spills(group)]
        widest = max((sum(widths[layer] for layer in group) for group in held), default=0)
        rooms = [self._room(split, widest) for split in self._splits]
        failures: dict[str, str] = {}
        for group in groups:
            give_back_freed()
            try:
                features = list(self._extract(group, rooms, meter, failures))
            except LinprobeError as error:
                if self._strict or group == groups[0]:  # else there is work to lose
                    raise
                failures |= dict.fromkeys(group, str(error))
                features = [{}, {}]
            yield {layer: partial(self._take, layer, failures, *features) for layer in group}

    def _extract(
        self,
        group: Sequence[str],
        rooms: Sequence[Tensor | None],
        meter: Meter,
        failures: dict[str, str],
    ) -> Iterator[dict[str, Rows]]:
        orders = (self._permutation, None)
        for split, permutation, room in zip(self._splits, orders, rooms, strict=True):
            points = [self._points[layer] for layer in group if layer not in failures]
            name = "float64 " * self._centre + split.source.split
            on_rows = meter.extracting(tuple(group), name)
            failed = None if self._strict else failures
            if not self._spills(group):
                yield {**self._extractor.extract(split, points, permutation, on_rows, room, failed)}
                continue
            assert self._scratch is not None  # else nothing spills
            with scratch_folder(self._scratch) as folder:
                check_space(folder, self._size(group) * len(split.labels) / self._num_rows)
                files = self._extractor.extract_to(folder, split, points, on_rows, failed)
            order = None if permutation is None else permutation.argsort()
            yield {layer: self._streamed(rows, order) for layer, rows in files.items()}

    @property
    def _num_rows(self) -> int:
        return sum(len(split.labels) for split in self._splits)

    def _size(self, group: Sequence[str]) -> float:
        return float(self._itemsize * self._num_rows * sum(self.num_features[x] for x in group))

    def _spills(self, group: Sequence[str]) -> bool:
        """Tell whether a group, which is one layer then, exceeds the budget."""
        return self._scratch is not None and self._size(group) > self._budget

    def _streamed(self, rows: FileRows, order: Tensor | None) -> StreamedFeatures:
        budget = left_by_logits(self._budget, rows, self._num_classes)
        return StreamedFeatures(rows, budget, order=order, device=self._extractor.device)

    def _take(
        self,
        layer: str,
        failures: Mapping[str, str],
        train: dict[str, Rows],
        test: dict[str, Rows],
    ) -> LayerFeatures:
        if layer in failures:
            raise LinprobeError(f"layer {layer!r}: {failures[layer]}")
        point = self._points[layer]
        # Popped, so that a layer's features are freed once its probe is done.
        x, xt = train.pop(layer), test.pop(layer)
        features = LayerFeatures(x, xt, point.dtype, point.stated, point.columns)
        if isinstance(x, StreamedFeatures):
            return replace(features, offset=point.base)  # float64 streams as it is
        return _centred(features, point.base) if self._centre else features

    def _room(self, split: Split, widest: int) -> Tensor | None:
        if not self._reuse:
            return None
        dtypes = {point.kept_dtype for point in self._points.values()}
        if len(dtypes) > 1:
            return None
        return torch.empty(len(split.labels) * widest, dtype=dtypes.pop())


def _centred(features: LayerFeatures, base: Tensor | None) -> LayerFeatures:
    """Subtract the training mean of float64 features and round what varies to float32.

    Args:
        features: overwritten.
        base: (n_features,) that they are the deviations from; None: zero.
    """
    x, xt = features.train, features.test
    assert isinstance(x, Tensor) and isinstance(xt, Tensor)  # networks' features are in memory
    mean = x.mean(0)
    if not bool(mean.isfinite().all()):
        return features
    born = born_dtype(DenseFeatures(x if base is None else x[:_BORN_ROWS] + base))
    x, xt = (part.sub_(mean).float() for part in (x, xt))
    found = replace(features, train=x, test=xt, offset=mean, born=born)
    if base is None:
        return found
    # What deviates is rounded by itself, unless the data were rounded before.
    return replace(found, offset=mean + base, rounded_at=mean if born == torch.float64 else None)
