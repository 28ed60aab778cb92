"""Features that are one tensor in memory."""

from collections.abc import Iterator
from math import inf

import torch
from torch import Tensor

from linprobe.core.features.base import FeatureMatrix, Part
from linprobe.core.linalg import backproject, class_logits

_TRANSFORM_ROWS = 8192


class DenseFeatures:
    """A `FeatureMatrix` over a tensor.

    Args:
        values: (num_rows, num_features), floating; never written to unless `owned`.
        owned: whether the tensor may be overwritten by its standardised form, which saves a copy.
            Its values are then lost to whoever gave it.
        born: dtype that the values were computed in, where it is floating; default: that of
            `values`.
        offset: (num_features,) float64 that was subtracted since; None: nothing was.
        room: bytes that copies of rows may take.
    """

    def __init__(
        self,
        values: Tensor,
        *,
        owned: bool = False,
        born: torch.dtype | None = None,
        offset: Tensor | None = None,
        room: float = inf,
    ) -> None:
        self.values, self.owned, self.offset, self.room = values, owned, offset, room
        self.born = born if born is not None and born.is_floating_point else values.dtype

    @property
    def num_rows(self) -> int:
        """See `FeatureMatrix`."""
        return self.values.shape[0]

    @property
    def num_features(self) -> int:
        """See `FeatureMatrix`."""
        return self.values.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """See `FeatureMatrix`."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """See `FeatureMatrix`."""
        return self.values.device

    def logits(self, weight: Tensor) -> Tensor:
        """See `FeatureMatrix`."""
        return class_logits(self.values, weight.to(self.dtype))

    def backproject(self, residuals: Tensor) -> Tensor:
        """See `FeatureMatrix`."""
        return backproject(residuals, self.values).double()

    def take(self, index: Tensor) -> Tensor:
        """See `FeatureMatrix`."""
        return self.values.index_select(0, index)  # several times as fast as values[index]

    def squared_norms(self) -> Tensor:
        """See `FeatureMatrix`."""
        norms: Tensor = torch.linalg.vector_norm(self.values, dim=1)
        return norms.square()

    def blocks(self, num_rows: int) -> Iterator[Tensor]:
        """See `FeatureMatrix`."""
        return iter(self.values.split(num_rows))

    def parts(self, num_rows: int) -> Iterator[Part]:
        """See `FeatureMatrix`; in order."""
        for start in range(0, self.num_rows, num_rows):
            where = slice(start, min(start + num_rows, self.num_rows))
            yield where, self.values[where]

    def rows(self, start: int, stop: int) -> "DenseFeatures":
        """See `FeatureMatrix`; owned where the whole is."""
        rows = self.values[start:stop]
        return DenseFeatures(rows, owned=self.owned, born=self.born, room=self.room)

    def in_float64(self) -> "DenseFeatures":
        """See `FeatureMatrix`; a new tensor, owned."""
        return DenseFeatures(self.values.to(torch.float64, copy=True), owned=True, room=self.room)

    def transformed(self, matrix: Tensor, dtype: torch.dtype) -> "DenseFeatures":
        """See `FeatureMatrix`; a new tensor, owned."""
        matrix = matrix.to(dtype)
        out = self.values.new_empty(self.num_rows, matrix.shape[1])
        for block, image in zip(
            self.blocks(_TRANSFORM_ROWS), out.split(_TRANSFORM_ROWS), strict=True
        ):
            image.copy_(block.to(dtype) @ matrix)
        return DenseFeatures(out, owned=True, room=self.room)


def as_features(features: Tensor | FeatureMatrix) -> FeatureMatrix:
    """Wrap a tensor (num_rows, num_features), which is never written to; return others as is."""
    return DenseFeatures(features) if isinstance(features, Tensor) else features
