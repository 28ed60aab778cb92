"""Which rows of a layer hold NaN or infinity, in words."""

from collections.abc import Iterator

import torch
from torch import Tensor

from linprobe.core.features import FeatureMatrix

_READ_ROWS = 8192


def nonfinite_reason(
    train: FeatureMatrix, test: FeatureMatrix, order: Tensor, dtype: torch.dtype
) -> str:
    """Say how many rows of features are not finite, which is the first, and what to do.

    Args:
        train: (n_train, n_features).
        test: (n_test, n_features).
        order: (n_train,) int64, the user's row that each training row is.
        dtype: of the activations, before they became features.
    """
    parts = list(_parts((("training", train, order), ("test", test, None))))
    cure = "leave such rows out, or mend what gives them"
    if dtype == torch.float16:
        cure = "float16 ends at 65,504: use bfloat16 or float32, or leave such rows out"
    return f"{' and '.join(parts)} hold NaN or infinity (rows count from 0); {cure}"


def _parts(splits: tuple[tuple[str, FeatureMatrix, Tensor | None], ...]) -> Iterator[str]:
    for split, features, order in splits:
        finite = torch.empty(features.num_rows, dtype=torch.bool, device=features.device)
        for where, block in features.parts(_READ_ROWS):
            finite[where] = torch.isfinite(block).all(1)
        rows = (~finite).nonzero()[:, 0].cpu()
        if len(rows):
            first = int((rows if order is None else order[rows]).min())
            yield f"{len(rows):,} of {features.num_rows:,} {split} rows (the first is row {first})"
