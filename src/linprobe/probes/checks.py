"""Features and labels that a probe can be fitted to."""

import torch
from torch import Tensor

from linprobe.core.features import FeatureMatrix, as_features
from linprobe.core.solvers.base import Status
from linprobe.core.sums import LocalSums, Sums, anywhere
from linprobe.probes.base import FailedProbe
from linprobe.runtime.errors import LinprobeError

_READ_ROWS = 8192


def nonfinite(features: FeatureMatrix, num_classes: int, split: str = "training") -> FailedProbe:
    """Report features of a split that hold NaN or infinity."""
    reason = f"the {split} features hold NaN or infinity"
    return FailedProbe(Status.NONFINITE_FEATURES, reason, features.num_features, num_classes)


def all_finite(features: Tensor | FeatureMatrix, sums: Sums | None = None) -> bool:
    """Check that no number of features (n_samples, n_features) is NaN or infinite."""
    # The extremes carry NaN and infinity along, without a mask as large as the features.
    finite = all(
        bool(torch.isfinite(extreme))
        for _, block in as_features(features).parts(_READ_ROWS)
        for extreme in torch.aminmax(block)
    )
    return not anywhere(sums or LocalSums(), not finite)


def check_splits(
    train_features: Tensor | FeatureMatrix,
    train_labels: Tensor,
    test_features: Tensor | FeatureMatrix,
    test_labels: Tensor,
    sums: Sums | None = None,
) -> None:
    """Refuse features (n, n_features) and labels (n,) that no probe can take.

    Raises:
        LinprobeError: Shapes, dtypes or labels that cannot be used.
    """
    widths = []
    for split, x, y in (
        ("train", train_features, train_labels),
        ("test", test_features, test_labels),
    ):
        shape = tuple(x.shape) if isinstance(x, Tensor) else (x.num_rows, x.num_features)
        if len(shape) != 2 or not x.dtype.is_floating_point or not shape[1]:
            raise LinprobeError(
                f"{split} features have shape {shape} and dtype {x.dtype}; expected "
                "floating point (n_samples, n_features): flatten or pool each sample"
            )
        if y.shape != shape[:1] or y.dtype != torch.int64:
            raise LinprobeError(
                f"{split} labels have shape {tuple(y.shape)} and dtype {y.dtype}; expected "
                f"int64 ({shape[0]},), one class number for each sample"
            )
        count = int((sums or LocalSums()).total(torch.tensor(len(y))))
        if count < (2 if split == "train" else 1):
            raise LinprobeError(f"the {split} split has {count} samples; expected more")
        if len(y) and int(y.min()) < 0:
            raise LinprobeError(
                f"{split} labels hold {int(y.min())}; expected class numbers from 0 on"
            )
        widths.append(shape[1])
    if widths[0] != widths[1]:
        raise LinprobeError(
            f"train features have {widths[0]} columns, test features {widths[1]}; expected the "
            "same layer for both splits"
        )
