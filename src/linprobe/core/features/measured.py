"""Standardisation of rows that are read a block at a time and never held together."""

import torch
from torch import Tensor

from linprobe.core.features.base import FeatureMatrix
from linprobe.core.features.standardised import (
    Standardisation,
    is_constant,
    suiting_scale,
    varying,
)
from linprobe.core.scales import Scale
from linprobe.core.sums import LocalSums, Sums

_LARGEST_EXPONENT = 1000  # of float64
_READ_ROWS = 8192


def measured(
    features: FeatureMatrix, scale: Scale, sample_weight: Tensor | None, sums: Sums | None = None
) -> Standardisation:
    """Find the standardisation of finite rows, in two reads and float64.

    It is that of `Standardisation.fit_` but for rounding of sums.

    Args:
        features: (n_samples, n_features), float32 or float64.
        scale: as `Standardisation.fit_` takes it.
        sample_weight: as `Standardisation.fit_` takes it.
        sums: completes sums over rows; default: all rows are here.
    """
    sums, rows = sums or LocalSums(), torch.ones(features.num_rows, dtype=torch.float64)
    weight = rows.to(features.device) if sample_weight is None else sample_weight.double()
    share = weight / sums.total(weight.sum())
    mean, largest = _mean(features, share, sums)
    if is_constant(largest, mean):
        return Standardisation(mean.double(), 1.0, torch.zeros_like(mean, dtype=torch.float64))
    varies = varying(largest, mean)
    # Powers of two, exact, bring squares of columns of any scale into range.
    exponent = torch.where(varies, -largest.double().log2().round(), 0.0)
    exponent = exponent.clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT)
    square = _square(features, share, mean, exponent, sums)
    deviation = square.sqrt() * (-exponent).exp2()
    if scale == "auto":
        scale = suiting_scale(mean, deviation, varies)
    if scale == "feature":
        factor = 1 / (square.sqrt() * int(varies.sum()) ** 0.5)
        unit = torch.where(varies, factor, 0.0).to(mean.dtype)
        return Standardisation(mean.double(), exponent.exp2() * unit.double(), deviation)
    exponent = -largest.max().double().log2().round()
    total = float((deviation * exponent.exp2()).square().sum())
    unit = torch.tensor(total**-0.5, dtype=mean.dtype, device=mean.device)
    return Standardisation(mean.double(), float(exponent.exp2() * unit.double()), deviation)


def _mean(features: FeatureMatrix, share: Tensor, sums: Sums) -> tuple[Tensor, Tensor]:
    """The mean of each column, and the largest distance from it, in the dtype of the rows."""
    first = _first_row(features, sums)
    low, high, moved = first.clone(), first.clone(), torch.zeros_like(first, dtype=torch.float64)
    for where, block in features.parts(_READ_ROWS):
        low, high = torch.minimum(low, block.amin(0)), torch.maximum(high, block.amax(0))
        # Less one of the rows, so that constant columns give their value exactly.
        moved += share[where] @ (block.double() - first.double())
    mean = (first.double() + sums.agreed(sums.total(moved))).to(first.dtype)
    return mean, torch.maximum(sums.largest(high) - mean, mean + sums.largest(-low))


def _first_row(features: FeatureMatrix, sums: Sums) -> Tensor:
    """Take one row, the same in all processes."""
    own = features.take(torch.arange(min(1, features.num_rows), device=features.device))
    return sums.gathered(own)[0]


def _square(
    features: FeatureMatrix, share: Tensor, mean: Tensor, exponent: Tensor, sums: Sums
) -> Tensor:
    """The mean square of each column, centred and times two to the power of `exponent`."""
    total, factor = torch.zeros_like(exponent), exponent.exp2()
    for where, block in features.parts(_READ_ROWS):
        total += share[where] @ (block - mean).double().mul_(factor).square_()
    return sums.agreed(sums.total(total))
