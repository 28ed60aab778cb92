"""Labels and groups of a split, read and checked before any forward pass."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linprobe.data.batches import Batch
from linprobe.data.inputs import Source
from linprobe.data.tokens import Tokens, kept_tokens
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.numbers import whole_number


@dataclass(frozen=True)
class Split:
    """A split with its labels.

    Attributes:
        source: its batches.
        tokens: "all": a row of features is a token; else a sample.
        labels: (n_rows,) int64, in the order of the source.
        sequence: (n_rows,) int64, the sample that each row belongs to.
        num_samples: sequences, under "all"; else rows.
    """

    source: Source
    tokens: Tokens
    labels: Tensor
    sequence: Tensor
    num_samples: int

    @classmethod
    def read(cls, source: Source, tokens: Tokens) -> "Split":
        """Read all labels of `source`.

        Raises:
            LinprobeError: No samples, or labels of another shape or type than expected.
        """
        labels, sequences, count = [], [], 0
        for batch in source.labels():
            own, rows = batch_rows(batch, tokens, source.split)
            labels.append(own)
            sequences.append(rows + count)
            count += len(batch)
        if not labels or not sum(map(len, labels)):
            raise LinprobeError(
                f"the {source.split} data is empty; expected at least one labelled sample"
            )
        return cls(source, tokens, torch.cat(labels), torch.cat(sequences), count)

    def batches(self) -> Iterator[tuple[Batch, slice]]:
        """Read the source again: each batch with the rows that are its own.

        Raises:
            LinprobeError: It gives something else than at first.
        """
        start = 0
        for batch in self.source:
            own, _ = batch_rows(batch, self.tokens, self.source.split)
            rows = slice(start, start + len(own))
            if not torch.equal(own, self.labels[rows]):
                raise LinprobeError(_changed(self.source.split, "other labels than"))
            start = rows.stop
            yield batch, rows
        if start != len(self.labels):
            what = f"{start:,} samples after {len(self.labels):,}"
            raise LinprobeError(_changed(self.source.split, what))


def batch_rows(batch: Batch, tokens: Tokens, split: str) -> tuple[Tensor, Tensor]:
    """Return the labels (n_rows,) int64 of a batch's rows, and the sample of each row."""
    labels = integer_labels(batch.labels, split)
    if tokens == "all":
        kept = kept_tokens(labels, batch.mask)
        return labels[kept], kept.nonzero()[:, 0].cpu()
    if labels.ndim != 1:
        raise LinprobeError(
            f"{split} labels have shape {tuple(labels.shape)} in a batch; expected one class "
            "number for each sample (with tokens='all', one for each token)"
        )
    return labels, torch.arange(len(labels))


def integer_labels(labels: Tensor, split: str) -> Tensor:
    """Convert labels to int64 on the CPU; raise `LinprobeError` where they aren't whole."""
    if labels.is_floating_point() or labels.is_complex():
        raise LinprobeError(
            f"{split} labels have dtype {str(labels.dtype).removeprefix('torch.')}; expected "
            "whole class numbers from 0 on: convert them to int64"
        )
    return labels.detach().cpu().to(torch.int64)


def check_labels(train: Tensor, test: Tensor, num_classes: int | None) -> int:
    """Check labels (n_train,) and (n_test,), int64, and return the number of classes.

    Raises:
        LinprobeError: Labels out of range, one class only, or fewer samples than classes.
    """
    if num_classes is not None:
        num_classes = whole_number("num_classes", num_classes, 2)
    for split, labels in (("train", train), ("test", test)):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or (num_classes is not None and high >= num_classes):
            top = "" if num_classes is None else f" to {num_classes - 1}"
            raise LinprobeError(
                f"{split} labels hold {low if low < 0 else high}; expected class numbers from 0"
                + (top or " on")
            )
    if int(train.min()) == int(train.max()):
        raise LinprobeError(
            f"the train labels are of one class only ({int(train[0])}); expected at least two"
        )
    count = num_classes or int(max(train.max(), test.max())) + 1
    if len(train) < count:
        raise LinprobeError(
            f"there are {len(train)} training samples for {count} classes (labels reach "
            f"{count - 1}); expected at least one for each: give more samples, or number the "
            "classes without gaps, numpy.unique(labels, return_inverse=True)"
        )
    return count


def read_groups(groups: object, num_train: int, num_test: int) -> Tensor | None:
    """Number the groups of the training samples: (n_train,) int64.

    Args:
        groups: None; one group a training sample; or a tuple of these and the test samples'.
        num_train: training samples.
        num_test: test samples.

    Raises:
        LinprobeError: Wrong lengths, or a group that stands in both splits.
    """
    if groups is None:
        return None
    train: Any
    train, test = groups if isinstance(groups, tuple) and len(groups) == 2 else (groups, None)
    names, number = np.unique(np.asarray(train), return_inverse=True)
    of_test = np.empty(num_test) if test is None else np.asarray(test)
    for split, own, count in (("train", number, num_train), ("test", of_test, num_test)):
        if own.shape != (count,):
            raise LinprobeError(
                f"groups of the {split} samples have shape {own.shape}; expected ({count},), one "
                "group for each sample (as a tuple: those of train, then those of test)"
            )
    shared: list[object] = [] if test is None else np.intersect1d(names, of_test).tolist()
    if shared:
        raise LinprobeError(
            f"{len(shared)} groups stand in both splits, {shared[0]!r} for one; expected "
            "every group on one side: move their samples"
        )
    return torch.from_numpy(number.astype(np.int64))


def _changed(split: str, what: str) -> str:
    return (
        f"the {split} data gives {what} the first time it was read; expected the same samples in "
        "the same order each time: give a list of batches, a Dataset or a DataLoader"
    )
