"""Features of layers that are arrays already."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from linprobe.core.features import (
    ArrayRows,
    FileRows,
    RowStore,
    StreamedFeatures,
    TensorRows,
    solved_dtype,
)
from linprobe.data.arrays import array_tensor
from linprobe.pipeline.engine import LayerGroup
from linprobe.pipeline.layer_fit import LayerFeatures
from linprobe.pipeline.meter import Meter
from linprobe.runtime.devices import free_bytes
from linprobe.runtime.memory import FEATURE_SHARE
from linprobe.runtime.threads import NARROW, thread_count

Array = Tensor | np.ndarray | FileRows

_COPIED_ROWS = 4096
# Of a solve at its peak, with the certificate's float64: numbers for each class and row.
_LOGIT_ARRAYS = 7
_LEAST_SHARE = 1 / 8  # of the budget, for features, whatever logits take
_TEST_SHARE = 0.25  # of the budget, up to which test features are copied where training ones stream


class ArrayLayers:
    """Layers whose features are arrays, copied when a layer's probe is fitted, or streamed.

    Args:
        arrays: layer to (n_train, n_features) and (n_test, n_features), checked.
        permutation: (n_train,) int64, the row that each training row is written to.
        device: where probes are solved.
        budget_bytes: for a layer's copy; larger ones are streamed. None: a share of what is free.
        one_by_one: fit narrow layers one after the other too.
        num_classes: K, whose logits count as features do where these are streamed.
    """

    def __init__(
        self,
        arrays: Mapping[str, tuple[Array, Array]],
        permutation: Tensor,
        device: torch.device,
        budget_bytes: float | None = None,
        *,
        one_by_one: bool = False,
        num_classes: int = 0,
    ) -> None:
        self._arrays, self._permutation, self._device = arrays, permutation, device
        self._one_by_one, self._num_classes = one_by_one, num_classes
        self.budget_bytes = _budget(device, budget_bytes)

    @property
    def num_features(self) -> dict[str, int]:
        """Layers in order, with the number of features of each."""
        return {layer: train.shape[1] for layer, (train, _) in self._arrays.items()}

    @property
    def num_workers(self) -> int:
        """Narrow layers at a time: as many as there are threads, and memory for their copies."""
        if self._one_by_one:
            return 1
        narrow = (pair for pair in self._arrays.values() if pair[0].shape[1] <= NARROW)
        largest = max((copied_bytes(*pair) for pair in narrow), default=1)
        return max(1, min(thread_count(self._device), int(self.budget_bytes / max(1, largest))))

    @property
    def rereads(self) -> bool:
        """See `LayerSource`: there is no network to run again."""
        return False

    def in_float64(self, layers: Sequence[str]) -> tuple[None, dict[str, str]]:
        """See `LayerSource`."""
        return None, {}

    def groups(self, meter: Meter, layers: Sequence[str]) -> Iterator[LayerGroup]:
        """Give all layers at once: nothing is held until a layer is taken."""
        yield {layer: self._taker(layer) for layer in layers}

    def _taker(self, layer: str) -> Callable[[], LayerFeatures]:
        def take() -> LayerFeatures:
            train, test = self._arrays[layer]
            dtype, budget = torch_dtype(train), self.budget_bytes
            if copied_bytes(train, test) <= budget:
                x = _copy(train, self._device, self._permutation)
                return LayerFeatures(x, _copy(test, self._device, None), dtype)
            budget = left_by_logits(budget, train, self._num_classes)
            held: Tensor | StreamedFeatures
            if (size := copied_bytes(test)) <= _TEST_SHARE * budget:
                held, budget = _copy(test, self._device, None), budget - size
            else:
                held = StreamedFeatures(_store(test), budget, device=self._device)
            order = self._permutation.argsort()
            streamed = StreamedFeatures(_store(train), budget, order=order, device=self._device)
            return LayerFeatures(streamed, held, dtype)

        return take


def any_streamed(
    arrays: Mapping[str, tuple[Array, Array]], device: torch.device, budget_bytes: float | None
) -> bool:
    """Tell whether `ArrayLayers` is to stream a layer."""
    budget = _budget(device, budget_bytes)
    return any(copied_bytes(*pair) > budget for pair in arrays.values())


def _budget(device: torch.device, budget_bytes: float | None) -> float:
    return FEATURE_SHARE * free_bytes(device) if budget_bytes is None else budget_bytes


def torch_dtype(features: Array) -> torch.dtype:
    """The dtype of an array, as PyTorch's."""
    if isinstance(features, Tensor | FileRows):
        return features.dtype
    return array_tensor(np.empty(0, features.dtype)).dtype


def copied_bytes(*features: Array) -> int:
    """Bytes of copies in the dtype that probes are solved in."""
    return sum(solved_dtype(torch_dtype(x)).itemsize * x.shape[0] * x.shape[1] for x in features)


def left_by_logits(budget: float, train: Array, num_classes: int) -> float:
    """Give what logits leave of a budget."""
    itemsize = solved_dtype(torch_dtype(train)).itemsize
    logits = _LOGIT_ARRAYS * itemsize * num_classes * len(train)
    return max(budget - logits, _LEAST_SHARE * budget)


def _store(features: Array) -> RowStore:
    if isinstance(features, Tensor):
        return TensorRows(features)
    return features if isinstance(features, FileRows) else ArrayRows(features)


def _copy(features: Array, device: torch.device, permutation: Tensor | None) -> Tensor:
    """(n_samples, n_features), row i written to row ``permutation[i]``."""
    dtype = solved_dtype(torch_dtype(features))
    copy = torch.empty(tuple(features.shape), dtype=dtype, device=device)
    for start in range(0, len(features), _COPIED_ROWS):
        rows = features[start : start + _COPIED_ROWS]
        block = rows.detach() if isinstance(rows, Tensor) else array_tensor(rows)
        stop = start + _COPIED_ROWS
        where = slice(start, stop) if permutation is None else permutation[start:stop]
        copy[where] = block.to(device, dtype)
    return copy
