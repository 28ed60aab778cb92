"""Test samples that are training samples: found by one hash of each row's bytes."""

from collections.abc import Iterable, Iterator, Sequence
from math import sqrt
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from linprobe.data.arrays import array_tensor
from linprobe.data.batches import Batch, leaves

RARE = 0.05
"""Share of training rows that repeat one another, up to which equal rows are one sample."""

_BLOCK = 4096


def input_hashes(batch: Batch) -> np.ndarray:
    """Hash the inputs of each sample, all tensors with a row for each: (n_samples,) int64."""
    count = len(batch)
    given = leaves([list(batch.args), batch.kwargs])
    tensors = [x for x in given if isinstance(x, Tensor) and x.shape[:1] == (count,)]
    return _hashes(tensors, count) if tensors else np.zeros(count, np.int64)


class Sliced(Protocol):
    """Rows that are read where they are sliced: of tensors, arrays and files."""

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def __getitem__(self, rows: slice) -> Any:
        """Read some rows, a tensor or an array."""
        ...


def feature_hashes(features: Sliced) -> np.ndarray:
    """Hash each row of (n_samples, n_features), a block at a time: (n_samples,) int64."""
    blocks = (features[start : start + _BLOCK] for start in range(0, len(features), _BLOCK))
    tensors = (rows if isinstance(rows, Tensor) else array_tensor(rows) for rows in blocks)
    return np.concatenate([_hashes([rows], len(rows)) for rows in tensors])


def _hashes(tensors: Sequence[Tensor], count: int) -> np.ndarray:
    rows: Iterable[tuple[bytes, ...]] = zip(*map(_row_bytes, tensors), strict=True)
    return np.fromiter(map(hash, rows), np.int64, count)


def _row_bytes(tensor: Tensor) -> list[bytes]:
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().reshape(len(tensor), -1)
    if not flat.shape[1]:
        return [b""] * len(tensor)
    return [row.tobytes() for row in flat.contiguous().view(torch.uint8).numpy()]


def repeats(train: np.ndarray) -> float:
    """Share of the rows that stand more than once."""
    _, counts = np.unique(train, return_counts=True)
    return float(counts[counts > 1].sum()) / len(train)


def copies_note(train: np.ndarray, test: np.ndarray, what: str) -> Iterator[str]:
    """Say how many test rows stand among the training rows.

    Rows of few values coincide by chance, in test as often as within train: that is not said.

    Args:
        train: (n_train,) hashes.
        test: (n_test,) hashes.
        what: rows are made of, such as "inputs".
    """
    share, found = repeats(train), int(np.isin(test, train).sum())
    chance = share * len(test)
    expected = 0.0 if share <= RARE else chance + max(3 * sqrt(chance), RARE * len(test))
    is_train = len(set(train.tolist())) > 1 and np.array_equal(train, test)
    if found > expected or is_train:
        yield (
            f"{found:,} of {len(test):,} test samples have the same {what} as training samples: "
            "for them the test error is not that of new samples; leave them out of one split."
        )
