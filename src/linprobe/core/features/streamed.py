"""Features that are never in memory as a whole: read, converted and standardised block by block.

Logits stay in memory, features stream. Rows of a view may lie anywhere in the store, as those that
are not held out do: they are read in the store's order, whole blocks at a time, and only the
logits' columns are put into the order of the view. A read of all rows is one pass over the file.
"""

from collections.abc import Iterator
from copy import copy

import torch
from torch import Tensor

from linprobe.core.features.base import FeatureMatrix, Part
from linprobe.core.features.standardised import Standardisation
from linprobe.core.features.stores import RowStore, Span
from linprobe.core.linalg import backproject, class_logits, put_columns, take_columns

_BLOCK_BYTES = 8 * 2**20  # of rows as they are multiplied: these stay in the cache
_BLOCKS = 32  # of the budget: two as they are read, one as multiplied, one in float64, and spare
_COPIES = 0.5  # of the budget, for rows that are gathered


class StreamedFeatures:
    """A `FeatureMatrix` over a store.

    Args:
        store: the rows in their own dtype; float16, bfloat16, float32 and narrow whole numbers
            are multiplied as float32, others as float64.
        budget_bytes: for blocks and copies of rows together.
        order: (num_rows,) int64 on the CPU, row of the store that each row is, no row twice;
            default: all rows in their order.
        device: where products are computed.
    """

    def __init__(
        self,
        store: RowStore,
        budget_bytes: float,
        *,
        order: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._store, self._budget, self.device = store, budget_bytes, torch.device(device)
        self._index = _Index(torch.arange(store.shape[0]) if order is None else order)
        self.dtype = self._read_dtype = solved_dtype(store.dtype)
        self._block_rows = self._fitting_rows()
        self._standardisation: Standardisation | None = None
        self._norms: list[Tensor] = []  # of the rows of the whole, whose views share it
        self._whole: StreamedFeatures | None = None  # that this is a view of
        self._start = 0

    def _fitting_rows(self) -> int:
        row = self.num_features * self.dtype.itemsize
        return max(1, int(min(_BLOCK_BYTES, self._budget / _BLOCKS) // row))

    @property
    def num_rows(self) -> int:
        """See `FeatureMatrix`."""
        return len(self._index.order)

    @property
    def num_features(self) -> int:
        """See `FeatureMatrix`."""
        return self._store.shape[1]

    @property
    def born(self) -> torch.dtype:
        """Dtype of the values in the store, where it is floating."""
        return self._store.dtype if self._store.dtype.is_floating_point else self._read_dtype

    @property
    def room(self) -> float:
        """See `FeatureMatrix`."""
        return _COPIES * self._budget

    def logits(self, weight: Tensor) -> Tensor:
        """See `FeatureMatrix`."""
        weight = weight.to(self.dtype)
        out = weight.new_empty(len(weight), self.num_rows)
        for where, block in self.parts(self._block_rows):
            put_columns(out, where, class_logits(block, weight))
        return out

    def backproject(self, residuals: Tensor) -> Tensor:
        """See `FeatureMatrix`."""
        shape = len(residuals), self.num_features
        total = residuals.new_zeros(shape, dtype=torch.float64)
        for where, block in self.parts(self._block_rows):
            total += backproject(take_columns(residuals, where), block)
        return total

    def take(self, index: Tensor) -> Tensor:
        """See `FeatureMatrix`."""
        rows, place = self._index.order[index.cpu()].sort()
        out = torch.empty(len(rows), self.num_features, dtype=self.dtype, device=self.device)
        for some, to in zip(
            rows.split(self._block_rows), place.split(self._block_rows), strict=True
        ):
            out.index_copy_(0, to.to(self.device), self._mapped(self._store.gather(some)))
        return out

    def squared_norms(self) -> Tensor:
        """See `FeatureMatrix`; read once for all views."""
        whole = self._whole or self
        if not self._norms:
            self._norms.append(_squared_norms(whole, self._block_rows))
        return self._norms[0][self._start : self._start + self.num_rows]

    def blocks(self, num_rows: int) -> Iterator[Tensor]:
        """See `FeatureMatrix`; reads here and there, unlike `parts`, where rows lie scattered."""
        return map(self.take, torch.arange(self.num_rows).split(num_rows))

    def parts(self, num_rows: int) -> Iterator[Part]:
        """See `FeatureMatrix`: in the order of the store."""
        found = list(self._index.spans(num_rows, self._block_rows))
        blocks = self._store.scan([span for span, _, _ in found])
        for (_, where, inside), block in zip(found, blocks, strict=True):
            # Several times as fast as block[inside], most of all in 16 bits.
            rows = block if inside is None else block.index_select(0, inside.to(block.device))
            placed = where if isinstance(where, slice) else where.to(self.device)
            yield placed, self._mapped(rows)

    def rows(self, start: int, stop: int) -> "StreamedFeatures":
        """See `FeatureMatrix`."""
        if (start, stop) == (0, self.num_rows):
            return self
        view = copy(self)
        view._whole = self._whole or self
        view._index, view._start = _Index(self._index.order[start:stop]), self._start + start
        return view

    def in_float64(self) -> "StreamedFeatures":
        """See `FeatureMatrix`; rows are widened once they are mapped."""
        view = copy(self)
        view.dtype, view._norms, view._whole, view._start = torch.float64, [], None, 0
        view._block_rows = view._fitting_rows()
        return view

    def transformed(self, matrix: Tensor, dtype: torch.dtype) -> "TransformedFeatures":
        """See `FeatureMatrix`; nothing is kept but the matrix."""
        return TransformedFeatures(self, matrix, dtype)

    def mapped(self, standardisation: Standardisation) -> "StreamedFeatures":
        """View the same rows standardised, as they are read."""
        view = copy(self)
        view._standardisation, view._norms, view._whole, view._start = standardisation, [], None, 0
        return view

    def _mapped(self, rows: Tensor) -> Tensor:
        rows = rows.to(self.device, self._read_dtype)
        if self._standardisation is not None:
            rows = self._standardisation.mapped(rows)
        return rows.to(self.dtype)


class TransformedFeatures:
    """Rows x of a `FeatureMatrix` as ``x @ matrix``, multiplied anew at each read, in float64.

    ``w (x M) = (w M^T) x``: a read costs no more than one of x, and has no copy.

    Args:
        features: the rows x.
        matrix: (num_features, n_coordinates).
        dtype: in which rows themselves are multiplied, where they are asked for.
    """

    def __init__(self, features: FeatureMatrix, matrix: Tensor, dtype: torch.dtype) -> None:
        self._features, self._matrix, self._product = features, matrix.double(), dtype
        self.dtype, self.device, self.num_rows = features.dtype, features.device, features.num_rows
        self.num_features, self.room = matrix.shape[1], features.room

    def logits(self, weight: Tensor) -> Tensor:
        """See `FeatureMatrix`."""
        seen = weight.double() @ self._matrix.T
        out = torch.empty(len(weight), self.num_rows, dtype=self.dtype, device=self.device)
        for where, block in self._features.parts(self._rows):
            put_columns(out, where, (seen @ block.double().T).to(self.dtype))
        return out

    def backproject(self, residuals: Tensor) -> Tensor:
        """See `FeatureMatrix`."""
        total = torch.zeros(
            len(residuals), len(self._matrix), dtype=torch.float64, device=self.device
        )
        for where, block in self._features.parts(self._rows):
            total += take_columns(residuals, where).double() @ block.double()
        return total @ self._matrix

    def take(self, index: Tensor) -> Tensor:
        """See `FeatureMatrix`."""
        parts = index.split(self._rows) if len(index) else (index,)
        return torch.cat([self._mapped(self._features.take(part)) for part in parts])

    def squared_norms(self) -> Tensor:
        """See `FeatureMatrix`."""
        return _squared_norms(self, self._rows)

    def blocks(self, num_rows: int) -> Iterator[Tensor]:
        """See `FeatureMatrix`."""
        return map(self._mapped, self._features.blocks(num_rows))

    def parts(self, num_rows: int) -> Iterator[Part]:
        """See `FeatureMatrix`."""
        return ((where, self._mapped(x)) for where, x in self._features.parts(num_rows))

    def rows(self, start: int, stop: int) -> "TransformedFeatures":
        """See `FeatureMatrix`."""
        return TransformedFeatures(self._features.rows(start, stop), self._matrix, self._product)

    def in_float64(self) -> "TransformedFeatures":
        """See `FeatureMatrix`."""
        return TransformedFeatures(self._features.in_float64(), self._matrix, torch.float64)

    def transformed(self, matrix: Tensor, dtype: torch.dtype) -> "TransformedFeatures":
        """See `FeatureMatrix`."""
        return TransformedFeatures(self._features, self._matrix @ matrix.double(), dtype)

    @property
    def _rows(self) -> int:
        return max(1, _BLOCK_BYTES // (8 * len(self._matrix)))

    def _mapped(self, rows: Tensor) -> Tensor:
        return (rows.to(self._product) @ self._matrix.to(self._product)).to(self.dtype)


class _Index:
    """Rows of a store that a view has."""

    def __init__(self, order: Tensor) -> None:
        self.order = order
        self._first = int(order[0]) if len(order) else 0
        steps = order.diff()
        self._is_run, self._rises = bool((steps == 1).all()), bool((steps > 0).all())
        if not self._is_run:
            self._rows, self._places = order.sort()

    def spans(
        self, num_rows: int, longest: int
    ) -> Iterator[tuple[Span, slice | Tensor, Tensor | None]]:
        """Yield spans of the store, rows of the view within, and where; None: all of the span.

        Args:
            num_rows: of the view, at most in one span.
            longest: rows of the store, at most.
        """
        count = len(self.order)
        if self._is_run:
            few = min(num_rows, longest)
            for start in range(0, count, few):
                stop = min(start + few, count)
                yield (self._first + start, self._first + stop), slice(start, stop), None
            return
        low, known = 0, self._rows.numpy()
        while low < count:
            high = min(low + num_rows, int(known.searchsorted(known[low] + longest)))
            rows, places = self._rows[low:high], self._places[low:high]
            start, stop = int(rows[0]), int(rows[-1]) + 1
            where = slice(low, high) if self._rises else places
            yield (start, stop), where, None if stop - start == high - low else rows - start
            low = high


def _squared_norms(features: FeatureMatrix, num_rows: int) -> Tensor:
    """Compute the squared length of each row, in one read, so many rows at a time."""
    norms = torch.empty(features.num_rows, dtype=features.dtype, device=features.device)
    for where, block in features.parts(num_rows):
        norms[where] = torch.linalg.vector_norm(block, dim=1).square()
    return norms


def solved_dtype(dtype: torch.dtype) -> torch.dtype:
    """Give the dtype to solve in: float64 of that and wide whole numbers, else float32."""
    whole = not dtype.is_floating_point and dtype.itemsize >= 4  # which float32 may not hold
    return torch.float64 if whole or dtype == torch.float64 else torch.float32
