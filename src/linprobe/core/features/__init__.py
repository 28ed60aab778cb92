"""Feature matrices: the rows of one layer, wherever they are."""

from linprobe.core.features.base import FeatureMatrix
from linprobe.core.features.dense import DenseFeatures, as_features
from linprobe.core.features.prepared import born_dtype, standardised
from linprobe.core.features.scratch import (
    ScratchRows,
    check_space,
    scratch_folder,
    scratch_parent,
)
from linprobe.core.features.standardised import LARGEST, Standardisation, StandardisedFeatures
from linprobe.core.features.stores import (
    ArrayRows,
    DamagedRows,
    FileRows,
    RowStore,
    TensorRows,
    file_rows,
)
from linprobe.core.features.streamed import StreamedFeatures, solved_dtype
from linprobe.core.features.tensor_files import safetensors_rows

__all__ = [
    "LARGEST",
    "ArrayRows",
    "DamagedRows",
    "DenseFeatures",
    "FeatureMatrix",
    "FileRows",
    "RowStore",
    "ScratchRows",
    "Standardisation",
    "StandardisedFeatures",
    "StreamedFeatures",
    "TensorRows",
    "as_features",
    "born_dtype",
    "check_space",
    "file_rows",
    "safetensors_rows",
    "scratch_folder",
    "scratch_parent",
    "solved_dtype",
    "standardised",
]
