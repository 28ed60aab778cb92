"""Features as problems are stated in them: standardised, whatever they were."""

import torch
from torch import Tensor

from linprobe.core.features.base import FeatureMatrix
from linprobe.core.features.dense import DenseFeatures
from linprobe.core.features.measured import measured
from linprobe.core.features.standardised import Standardisation, StandardisedFeatures
from linprobe.core.features.streamed import StreamedFeatures
from linprobe.core.scales import Scale
from linprobe.core.sums import LocalSums, Sums

_READ_ROWS = 8192
_COMPARED_ROWS = 256


def standardised(
    features: FeatureMatrix,
    scale: Scale = "layer",
    sample_weight: Tensor | None = None,
    sums: Sums | None = None,
) -> StandardisedFeatures:
    """Centre the rows and scale them to a mean squared length of 1.

    Args:
        features: finite. A tensor that is owned is overwritten; others are copied, float16 and
            bfloat16 to float32; those that are streamed are mapped as they are read. Features that
            are standardised are returned as they are.
        scale: as `Standardisation.fit_` takes it.
        sample_weight: as `Standardisation.fit_` takes it.
        sums: completes sums over rows; default: all rows are here.
    """
    if isinstance(features, StandardisedFeatures):
        return features
    sums = sums or LocalSums()
    born = born_dtype(features, sums)
    if isinstance(features, StreamedFeatures):
        standardisation = measured(features, scale, sample_weight, sums)
        return StandardisedFeatures(features.mapped(standardisation), standardisation, born)
    offset = features.offset if isinstance(features, DenseFeatures) else None
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
    if sums.alone:
        standardisation = Standardisation.fit_(values, scale, sample_weight)
    else:
        standardisation = measured(DenseFeatures(values), scale, sample_weight, sums)
        for block in values.split(_READ_ROWS):
            block.copy_(standardisation.mapped(block))
    return StandardisedFeatures(DenseFeatures(values), standardisation, born, offset)


def born_dtype(features: FeatureMatrix, sums: Sums | None = None) -> torch.dtype:
    """Find the dtype that values were rounded to, which a wider one may have been made of since."""
    born, sums = features.dtype, sums or LocalSums()
    if isinstance(features, DenseFeatures | StreamedFeatures):
        born = features.born
    if isinstance(features, DenseFeatures) and features.offset is not None:
        return born  # what is left of the values no longer tells
    for narrow in (torch.bfloat16, torch.float16, torch.float32):
        if torch.finfo(narrow).eps <= torch.finfo(born).eps:
            break
        if _holds(features, narrow, sums):
            return narrow
    return born


def _holds(features: FeatureMatrix, narrow: torch.dtype, sums: Sums) -> bool:
    """Tell whether a dtype holds every value, and they aren't whole numbers, which are exact."""
    broken = rounded = False
    for _, block in features.parts(_COMPARED_ROWS):
        broken = not torch.equal(block.to(narrow).to(block.dtype), block)
        if broken:
            break
        rounded = rounded or not torch.equal(block.round(), block)
    broken, rounded = sums.largest(torch.tensor([broken, rounded]).int()).bool().tolist()
    return rounded and not broken
