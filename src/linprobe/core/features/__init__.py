"""Feature matrices: the rows of one layer, wherever they are."""

from linprobe.core.features.base import FeatureMatrix
from linprobe.core.features.dense import DenseFeatures, as_features
from linprobe.core.features.standardised import (
    LARGEST,
    Standardisation,
    StandardisedFeatures,
    born_dtype,
    standardised,
)

__all__ = [
    "LARGEST",
    "DenseFeatures",
    "FeatureMatrix",
    "Standardisation",
    "StandardisedFeatures",
    "as_features",
    "born_dtype",
    "standardised",
]
