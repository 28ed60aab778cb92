"""Standardised features: centred, and divided by one number or by one for each column."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from linprobe.core.features.base import FeatureMatrix, Part
from linprobe.core.scales import Scale

_STANDARDISE_ROWS = 256
_READ_ROWS = 8192
_FEW, _NEARLY_ALL = 0.05, 0.99  # of the columns, of their variance
# Differences below so many roundings of the mean are rounding of it; above the second, none.
_ROUNDINGS, _CLEAR = 4, 256
LARGEST = 1e280
"""Bound of scales and raw weights, so that float64 holds their products."""

# What of the variation may be rounding before it is said. Rounding in earlier layers comes on top
# of the estimate; in 16 bits the estimate alone is large, and known to whoever chose them.
_ROUNDED, _ROUNDED_SHORT = 1e-2, 1e-1


@dataclass(frozen=True)
class Standardisation:
    """Affine map to the space of the problem: ``(x - mean) * scale``.

    Attributes:
        mean: (n_features,) float64, each value representable in the features' dtype.
        scale: one number for the layer, or (n_features,) float64; either way the mean of
            ``||x||^2``, weighted as in P, becomes 1. One number keeps the geometry of the layer and
            makes `l2` comparable between layers; 1 for constant features. Numbers of their own give
            every column that varies the same variance; 0 for columns that don't.
        deviation: (n_features,) float64, standard deviation of the raw columns; None: not known.
    """

    mean: Tensor
    scale: float | Tensor
    deviation: Tensor | None = None

    @property
    def kind(self) -> str:
        """Name of the scale: "layer" or "feature"."""
        return "feature" if isinstance(self.scale, Tensor) else "layer"

    @property
    def exists(self) -> bool:
        """Tell whether the map and the raw weights it gives can be written as float64 numbers."""
        largest = float(torch.as_tensor(self.scale, dtype=torch.float64).max())
        return 0 <= largest <= LARGEST and bool(self.mean.isfinite().all())

    @classmethod
    def fit_(
        cls, features: Tensor, scale: Scale = "layer", sample_weight: Tensor | None = None
    ) -> "Standardisation":
        """Measure `features` (n_samples, n_features), finite, and standardise them in place.

        Args:
            features: overwritten.
            scale: "auto" is "feature" where at most a twentieth of the columns that vary, or one,
                hold 99 % of the variance, and that is no rounding: for the rest no penalty of a
                usual path is small enough.
            sample_weight: (n_samples,), positive, of mean and deviation; default: equal.
        """
        blocks = features.split(_STANDARDISE_ROWS)
        share = None if sample_weight is None else sample_weight.double() / sample_weight.sum()
        mean = _mean(blocks, share)
        for block in blocks:
            block.sub_(mean)
        largest = torch.stack([block.abs().amax(0) for block in blocks]).amax(0)
        if is_constant(largest, mean):
            features.zero_()
            return cls(mean.double(), 1.0, torch.zeros_like(mean, dtype=torch.float64))
        varies = varying(largest, mean)
        # Powers of two, exact, bring squares of columns of any scale into range.
        exponent = torch.where(varies, -largest.double().log2().round(), 0.0)
        deviation = _deviation(blocks, exponent, share)
        if scale == "auto":
            scale = suiting_scale(mean, deviation, varies)
        if scale == "feature":
            factor = 1 / (deviation * exponent.exp2() * int(varies.sum()) ** 0.5)
            unit = torch.where(varies, factor, 0.0).to(features.dtype)
            _multiply_(blocks, *_powers(exponent, features.dtype), unit)
            return cls(mean.double(), exponent.exp2() * unit.double(), deviation)
        exponent = -largest.max().double().log2().round()
        _multiply_(blocks, *_powers(exponent, features.dtype))
        lengths = [torch.linalg.vector_norm(block, dim=1).double() for block in blocks]
        if share is None:
            square = sum(float(length.square().sum()) for length in lengths) / len(features)
        else:
            square = float(share @ torch.cat(lengths).square())
        unit = torch.tensor(square**-0.5, dtype=features.dtype)
        _multiply_(blocks, unit)
        return cls(mean.double(), float(exponent.exp2() * unit.double()), deviation)

    def apply(self, raw: Tensor) -> Tensor:
        """Map raw rows (n_samples, n_features), in their dtype: a new tensor."""
        scale = torch.as_tensor(self.scale, dtype=torch.float64, device=raw.device)
        if float(scale.max()) > torch.finfo(raw.dtype).max:
            return ((raw.double() - self.mean) * scale).to(raw.dtype)
        centred = raw - self.mean.to(raw.dtype)
        return centred.mul_(self.scale if scale.ndim == 0 else scale.to(raw.dtype))

    def mapped(self, raw: Tensor) -> Tensor:
        """Map raw rows as `fit_` maps those that it measures: constant ones to zero."""
        assert self.deviation is not None
        return self.apply(raw) if bool(self.deviation.any()) else torch.zeros_like(raw)

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
        offset: (n_features,) float64 that was subtracted from them before; None: nothing was.

    Attributes:
        found: what was computed of the rows alone, by its name: every fit to them may use it.
    """

    def __init__(
        self,
        features: FeatureMatrix,
        standardisation: Standardisation,
        raw_dtype: torch.dtype | None = None,
        offset: Tensor | None = None,
    ) -> None:
        self._features, self.standardisation = features, standardisation
        self.raw_dtype = raw_dtype or features.dtype
        self._offset = offset
        self.found: dict[str, Any] = {}

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
    def room(self) -> float:
        """See `FeatureMatrix`."""
        return self._features.room

    @property
    def rounding(self) -> float:
        """Root mean square of the raw features' rounding over that of what varies in them.

        An estimate of the least there can be: half a unit in the last place of their mean, in each
        column at most what varies there. Infinite for features that are constant, but for zeros; 0
        for those.
        """
        s = self.standardisation
        assert s.deviation is not None
        mean = s.mean if self._offset is None else s.mean + self._offset
        if not bool(s.deviation.any()):
            return float("inf") if bool(mean.any()) else 0.0
        return _rounding(mean, torch.finfo(self.raw_dtype).eps, s.deviation, s.scale)

    @property
    def rounding_deviation(self) -> Tensor:
        """Half a unit in the last place of each column's size, as mapped: (n_features,) float64."""
        s = self.standardisation
        assert s.deviation is not None
        mean = s.mean if self._offset is None else s.mean + self._offset
        half = 0.5 * torch.finfo(self.raw_dtype).eps * torch.hypot(mean, s.deviation)
        return torch.minimum(half, s.deviation) * s.scale

    @property
    def rounded(self) -> bool:
        """Tell whether so much of what varies may be rounding that it is to be said."""
        short = self.raw_dtype.itemsize < 4
        return self.rounding > (_ROUNDED_SHORT if short else _ROUNDED)

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

    def parts(self, num_rows: int) -> Iterator[Part]:
        """See `FeatureMatrix`."""
        return self._features.parts(num_rows)

    def rows(self, start: int, stop: int) -> FeatureMatrix:
        """See `FeatureMatrix`; standardised by the statistics of the whole."""
        return self._features.rows(start, stop)

    def in_float64(self) -> FeatureMatrix:
        """See `FeatureMatrix`."""
        return self._features.in_float64()

    def transformed(self, matrix: Tensor, dtype: torch.dtype) -> FeatureMatrix:
        """See `FeatureMatrix`."""
        return self._features.transformed(matrix, dtype)


def _mean(blocks: Sequence[Tensor], share: Tensor | None) -> Tensor:
    if share is not None:
        parts = zip(share.split(_STANDARDISE_ROWS), blocks, strict=True)
        first = blocks[0][0].double()  # subtracted, so that constant columns give it exactly
        moved = torch.stack([s @ (block.double() - first) for s, block in parts]).sum(0)
        weighted: Tensor = first + moved
        return weighted.to(blocks[0].dtype)
    num_rows = sum(map(len, blocks))
    mean = torch.stack([block.sum(0).double() for block in blocks]).sum(0) / num_rows
    if not bool(mean.isfinite().all()):  # sums beyond the largest number
        mean = torch.stack([(block.double() / num_rows).sum(0) for block in blocks]).sum(0)
    return mean.to(blocks[0].dtype)


def varying(largest: Tensor, mean: Tensor) -> Tensor:
    """Tell of each column whether it varies by more than the rounding of its mean."""
    return largest > _ROUNDINGS * torch.finfo(mean.dtype).eps * mean.abs()


def is_constant(largest: Tensor, mean: Tensor) -> bool:
    """Tell whether centred columns are rounding of their means and no more."""
    eps, size = torch.finfo(mean.dtype).eps, mean.abs()
    if float(largest.max()) > _ROUNDINGS * eps * float(size.max()):
        return False
    # A large column that is constant tells nothing of the others.
    moved, clearly = (int((largest > k * eps * size).sum()) for k in (_ROUNDINGS, _CLEAR))
    return 2 * clearly <= moved


def _rounding(mean: Tensor, eps: float, deviation: Tensor, scale: float | Tensor = 1.0) -> float:
    """Estimate the rounding of all columns by half a unit in the last place of their means."""
    half = 0.5 * eps * mean.double().abs()
    return float((torch.minimum(half, deviation) * scale).norm())


def suiting_scale(mean: Tensor, deviation: Tensor, varies: Tensor) -> Scale:
    """Return the scale that "auto" stands for."""
    known, eps = deviation[varies] / deviation.max(), torch.finfo(mean.dtype).eps
    rounding = _rounding(mean, eps, deviation, 1 / deviation.max())
    share, few = known.square().sort(descending=True).values.cumsum(0), int(_FEW * len(known)) or 1
    few_dominate = len(known) > few and bool(share[few - 1] >= _NEARLY_ALL * share[-1])
    return "feature" if few_dominate and rounding <= _ROUNDED * float(known.norm()) else "layer"


def _deviation(blocks: Sequence[Tensor], exponent: Tensor, share: Tensor | None) -> Tensor:
    powers, square = _powers(exponent, blocks[0].dtype), torch.zeros_like(exponent)
    shares = [None] * len(blocks) if share is None else share.split(_STANDARDISE_ROWS)
    for block, s in zip(blocks, shares, strict=True):
        for power in powers:
            block = block * power
        if s is None:
            square += torch.linalg.vector_norm(block, dim=0).double().square()
        else:
            square += s @ block.double().square()
    mean = square if share is not None else square / sum(map(len, blocks))
    return mean.sqrt() * (-exponent).exp2()


def _powers(exponent: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Factors whose product is two to the power of `exponent`: two where one would overflow."""
    if float(exponent.abs().max()) < math.log2(torch.finfo(dtype).max):
        return (exponent.exp2().to(dtype),)
    half = (exponent / 2).round()
    return half.exp2().to(dtype), (exponent - half).exp2().to(dtype)


def _multiply_(blocks: Sequence[Tensor], *factors: Tensor) -> None:
    for block in blocks:
        for factor in factors:
            block.mul_(factor)
