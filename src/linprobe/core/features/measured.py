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

_LARGEST_EXPONENT = 1000  # of float64
_READ_ROWS = 8192


def measured(
    features: FeatureMatrix, scale: Scale, sample_weight: Tensor | None
) -> Standardisation:
    """Find the standardisation of finite rows, in two reads and float64.

    It is that of `Standardisation.fit_` but for rounding of sums.

    Args:
        features: (n_samples, n_features), float32 or float64.
        scale: as `Standardisation.fit_` takes it.
        sample_weight: as `Standardisation.fit_` takes it.
    """
    share = None if sample_weight is None else sample_weight.double() / sample_weight.sum()
    mean, largest = _mean(features, share)
    if is_constant(largest, mean):
        return Standardisation(mean.double(), 1.0, torch.zeros_like(mean, dtype=torch.float64))
    varies = varying(largest, mean)
    # Powers of two, exact, bring squares of columns of any scale into range.
    exponent = torch.where(varies, -largest.double().log2().round(), 0.0)
    exponent = exponent.clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT)
    square = _square(features, share, mean, exponent)
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


def _mean(features: FeatureMatrix, share: Tensor | None) -> tuple[Tensor, Tensor]:
    """The mean of each column, and the largest distance from it, in the dtype of the rows."""
    first: Tensor | None = None
    for where, block in features.parts(_READ_ROWS):
        if first is None:
            low, high = block[0].clone(), block[0].clone()
            first = block[0].to(torch.float64, copy=True)
            moved = torch.zeros_like(first)
        low, high = torch.minimum(low, block.amin(0)), torch.maximum(high, block.amax(0))
        # Less one of the rows, so that constant columns give their value exactly.
        apart = block.double() - first
        moved += apart.sum(0) if share is None else share[where] @ apart
    assert first is not None
    mean = (first + (moved / features.num_rows if share is None else moved)).to(low.dtype)
    return mean, torch.maximum(high - mean, mean - low)


def _square(
    features: FeatureMatrix, share: Tensor | None, mean: Tensor, exponent: Tensor
) -> Tensor:
    """The mean square of each column, centred and times two to the power of `exponent`."""
    total, factor = torch.zeros_like(exponent), exponent.exp2()
    for where, block in features.parts(_READ_ROWS):
        square = (block - mean).double().mul_(factor).square_()
        total += square.sum(0) if share is None else share[where] @ square
    return total if share is not None else total / features.num_rows
