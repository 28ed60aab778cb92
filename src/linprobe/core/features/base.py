"""The seam between features and everything that reads them."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

Part = tuple[slice | Tensor, Tensor]
"""Numbers of some rows, as a slice or an int64 index (m,), and the rows (m, num_features)."""


class FeatureMatrix(Protocol):
    """Rows of one layer's features, (num_rows, num_features), wherever they are.

    Solvers and certificate read features by these methods only, so a new place to keep features
    (a file, a shard, a sparse matrix) is a new class with these methods. None of them writes to
    what the matrix was made from.
    """

    @property
    def num_rows(self) -> int:
        """Number of samples."""
        ...

    @property
    def num_features(self) -> int:
        """Number of columns."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the values and of `logits`."""
        ...

    @property
    def device(self) -> torch.device:
        """Where products are computed."""
        ...

    @property
    def room(self) -> float:
        """Bytes that copies of rows may take; infinite where all rows are in memory."""
        ...

    def logits(self, weight: Tensor) -> Tensor:
        """Multiply each row by a weight (K, num_features): (K, num_rows), contiguous, `dtype`."""
        ...

    def backproject(self, residuals: Tensor) -> Tensor:
        """Sum residual (K, num_rows) times row over all rows: (K, num_features), float64."""
        ...

    def take(self, index: Tensor) -> Tensor:
        """Gather the rows of an int64 index (m,), in its order: (m, num_features)."""
        ...

    def squared_norms(self) -> Tensor:
        """Compute the squared length of each row: (num_rows,)."""
        ...

    def blocks(self, num_rows: int) -> Iterator[Tensor]:
        """Yield all rows in order, `num_rows` at a time; blocks are to be read, not written."""
        ...

    def parts(self, num_rows: int) -> Iterator[Part]:
        """Yield all rows in the order that costs least to read, at most `num_rows` at a time.

        Rows are to be read, not written, and last until the next part is asked for.
        """
        ...

    def rows(self, start: int, stop: int) -> "FeatureMatrix":
        """View the rows from `start` up to, not including, `stop`."""
        ...

    def in_float64(self) -> "FeatureMatrix":
        """Give the same values in float64: a copy where rows are in memory, else a view."""
        ...

    def transformed(self, matrix: Tensor, dtype: torch.dtype) -> "FeatureMatrix":
        """Map each row x to ``x @ matrix``.

        Args:
            matrix: (num_features, n_coordinates).
            dtype: to multiply in; the result has that of these features.
        """
        ...
