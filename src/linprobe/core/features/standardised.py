"""Standardised features: centred, and divided by one number for the layer."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from linprobe.core.features.base import FeatureMatrix
from linprobe.core.features.dense import DenseFeatures

_STANDARDISE_ROWS = 256
_READ_ROWS = 8192


@dataclass(frozen=True)
class Standardisation:
    """Affine map to the space of the problem: ``(x - mean) * scale``.

    Attributes:
        mean: (n_features,) float64, each value representable in the features' dtype.
        scale: one number for the layer, so that the mean of ``||x||^2`` becomes 1; 1 for
            constant features. It keeps the geometry of the layer and makes `l2` comparable
            between layers.
    """

    mean: Tensor
    scale: float

    @classmethod
    def fit_(cls, features: Tensor) -> "Standardisation":
        """Measure `features` (n_samples, n_features), finite, and standardise them in place."""
        blocks = features.split(_STANDARDISE_ROWS)
        total = torch.stack([block.sum(0).double() for block in blocks]).sum(0)
        mean = (total / len(features)).to(features.dtype)
        for block in blocks:
            block.sub_(mean)
        largest = max(float(block.abs().max()) for block in blocks)
        # Differences below this are rounding of the mean itself: the features are constant.
        if largest <= 4 * torch.finfo(features.dtype).eps * float(mean.abs().max()):
            features.zero_()
            return cls(mean.double(), 1.0)
        # A power of two, exact, brings squares of features of any scale into range.
        power = 2.0 ** -torch.tensor(largest, dtype=torch.float64).log2().round().item()
        square = 0.0
        for block in blocks:
            block.mul_(power)
            square += float(torch.linalg.vector_norm(block, dim=1).double().square().sum())
        unit = torch.tensor((square / len(features)) ** -0.5, dtype=features.dtype)
        for block in blocks:
            block.mul_(unit)
        return cls(mean.double(), power * float(unit))

    def to_raw(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Fold the map into a probe: the weight and bias returned, float64, take raw features."""
        raw = weight.double() * self.scale
        return raw, bias.double() - raw @ self.mean

    def pull_back(self, raw: Tensor, residual_sum: Tensor) -> Tensor:
        """Turn ``sum_i r_i x_i^T`` of raw features into that of standardised ones.

        Args:
            raw: (n_classes, n_features) float64.
            residual_sum: ``sum_i r_i``, (n_classes,) float64.
        """
        return (raw - torch.outer(residual_sum, self.mean)) * self.scale


class StandardisedFeatures:
    """A `FeatureMatrix` of standardised rows that knows the map from the raw ones.

    Args:
        features: the rows as mapped.
        standardisation: the map.
        raw_dtype: dtype that the raw values were rounded to; default: that of `features`.
    """

    def __init__(
        self,
        features: FeatureMatrix,
        standardisation: Standardisation,
        raw_dtype: torch.dtype | None = None,
    ) -> None:
        self._features, self.standardisation = features, standardisation
        self.raw_dtype = raw_dtype or features.dtype

    @property
    def num_rows(self) -> int:
        """See `FeatureMatrix`."""
        return self._features.num_rows

    @property
    def num_features(self) -> int:
        """See `FeatureMatrix`."""
        return self._features.num_features

    @property
    def dtype(self) -> torch.dtype:
        """See `FeatureMatrix`."""
        return self._features.dtype

    @property
    def device(self) -> torch.device:
        """See `FeatureMatrix`."""
        return self._features.device

    @property
    def rounding(self) -> float:
        """Root mean square of the raw features' rounding over that of what varies in them.

        An estimate of the least there can be: half a unit in the last place of their mean.
        Rounding in earlier layers adds to it. Infinite for features that are constant, but for
        zeros; 0 for those.
        """
        size, scale = float(self.standardisation.mean.norm()), self.standardisation.scale
        if scale == 1.0 and not any(bool(block.any()) for block in self.blocks(_READ_ROWS)):
            return float("inf") if size else 0.0
        return 0.5 * torch.finfo(self.raw_dtype).eps * size * scale

    def logits(self, weight: Tensor) -> Tensor:
        """See `FeatureMatrix`."""
        return self._features.logits(weight)

    def backproject(self, residuals: Tensor) -> Tensor:
        """See `FeatureMatrix`."""
        return self._features.backproject(residuals)

    def take(self, index: Tensor) -> Tensor:
        """See `FeatureMatrix`."""
        return self._features.take(index)

    def squared_norms(self) -> Tensor:
        """See `FeatureMatrix`."""
        return self._features.squared_norms()

    def blocks(self, num_rows: int) -> Iterator[Tensor]:
        """See `FeatureMatrix`."""
        return self._features.blocks(num_rows)

    def rows(self, start: int, stop: int) -> FeatureMatrix:
        """See `FeatureMatrix`; standardised by the statistics of the whole."""
        return self._features.rows(start, stop)

    def transformed(self, matrix: Tensor, dtype: torch.dtype) -> FeatureMatrix:
        """See `FeatureMatrix`."""
        return self._features.transformed(matrix, dtype)


def standardised(features: FeatureMatrix) -> StandardisedFeatures:
    """Centre the rows and scale them to a mean squared length of 1.

    Args:
        features: finite. A tensor that is owned is overwritten; others are copied, float16 and
            bfloat16 to float32. Features that are standardised are returned as they are.
    """
    if isinstance(features, StandardisedFeatures):
        return features
    dtype = features.dtype if features.dtype == torch.float64 else torch.float32
    if isinstance(features, DenseFeatures) and features.owned and features.dtype == dtype:
        values = features.values
    else:
        values = torch.empty(
            features.num_rows, features.num_features, dtype=dtype, device=features.device
        )
        blocks = features.blocks(_READ_ROWS)
        for block, out in zip(blocks, values.split(_READ_ROWS), strict=True):
            out.copy_(block)
    standardisation = Standardisation.fit_(values)
    return StandardisedFeatures(DenseFeatures(values), standardisation, features.dtype)
