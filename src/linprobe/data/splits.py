"""Labels and groups of a split, read and checked before any forward pass."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linprobe.data.arrays import array_tensor
from linprobe.data.batches import Batch
from linprobe.data.copies import input_hashes
from linprobe.data.inputs import Source
from linprobe.data.labels import Names
from linprobe.data.tokens import Tokens, kept_tokens
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.text import first_line


@dataclass(frozen=True)
class Split:
    """A split with its labels.

    Attributes:
        source: its batches.
        tokens: "all": a row of features is a token; else a sample.
        labels: (n_rows,) int64, in the order of the source.
        sequence: (n_rows,) int64, the sample that each row belongs to.
        num_samples: sequences, under "all"; else rows.
        names: of labels that aren't numbers, by what stands for them in `labels`.
        hashes: receives `input_hashes` of the batches when they are first read; None: not made.
        firsts: hash of the first sample of each batch, to see at each pass that the data gives
            the same again; (): arrays, which do.
    """

    source: Source
    tokens: Tokens
    labels: Tensor
    sequence: Tensor
    num_samples: int
    names: Names = field(default_factory=dict)
    hashes: list[np.ndarray] | None = None
    firsts: tuple[int, ...] = ()

    @classmethod
    def read(cls, source: Source, tokens: Tokens) -> "Split":
        """Read all labels of `source`.

        Raises:
            LinprobeError: No samples, or labels of another shape or type than expected.
        """
        labels, sequences, count = [], [], 0
        names: Names = {}
        firsts: list[int] = []
        for batch in source.labels():
            firsts += [] if source.is_arrays else [_first_hash(batch)]
            own, rows = batch_rows(batch, tokens, source.split)
            labels.append(own)
            sequences.append(rows + count)
            count += len(batch)
            names |= batch.names
        if not labels or not sum(map(len, labels)):
            raise LinprobeError(
                f"the {source.split} data is empty; expected at least one labelled sample"
            )
        every = torch.cat(labels)
        if not names and source.classes and 0 <= every.min() <= every.max() < len(source.classes):
            names = dict(enumerate(source.classes))
        return cls(source, tokens, every, torch.cat(sequences), count, names, None, tuple(firsts))

    def batches(self) -> Iterator[tuple[Batch, slice]]:
        """Read the source again: each batch with the rows that are its own.

        Raises:
            LinprobeError: It gives something else than at first.
        """
        start, made = 0, []
        for place, batch in enumerate(self.source):
            own, _ = batch_rows(batch, self.tokens, self.source.split)
            rows = slice(start, start + len(own))
            if not torch.equal(own, self.labels[rows]):
                raise LinprobeError(_changed(self.source.split, "other labels than"))
            start = rows.stop
            if self.firsts[place : place + 1] not in ((), (_first_hash(batch),)):
                raise LinprobeError(_changed(self.source.split, "other inputs than"))
            if self.hashes == []:
                made.append(input_hashes(batch))
            yield batch, rows
        if start != len(self.labels):
            what = f"{start:,} samples after {len(self.labels):,}"
            raise LinprobeError(_changed(self.source.split, what))
        if self.hashes is not None:
            self.hashes.extend(made)


def _first_hash(batch: Batch) -> int:
    return int(input_hashes(batch.head(1))[0]) if len(batch) else 0


def batch_rows(batch: Batch, tokens: Tokens, split: str) -> tuple[Tensor, Tensor]:
    """Return the labels (n_rows,) int64 of a batch's rows, and the sample of each row."""
    labels = batch.labels
    if tokens == "all":
        kept = kept_tokens(labels, batch.mask)
        return labels[kept], kept.nonzero()[:, 0].cpu()
    if labels.ndim != 1:
        raise LinprobeError(
            f"{split} labels have shape {tuple(labels.shape)} in a batch; expected one class for "
            "each sample (with tokens='all', one for each token): of one-hot rows take argmax(1), "
            "and flatten a column"
        )
    return labels, torch.arange(len(labels))


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
    own_groups = _group_array(train, "train")
    names, number = np.unique(own_groups, return_inverse=True)
    of_test = np.empty(num_test) if test is None else _group_array(test, "test")
    for split, own, count in (("train", number, num_train), ("test", of_test, num_test)):
        if own.shape != (count,):
            raise LinprobeError(
                f"groups of the {split} samples have shape {own.shape}; expected ({count},), one "
                "group for each sample (as a tuple: those of train, then those of test)"
            )
    try:
        shared: list[object] = [] if test is None else np.intersect1d(names, of_test).tolist()
    except TypeError as error:
        raise LinprobeError(
            f"groups of the train samples are {names.dtype}, those of the test samples "
            f"{of_test.dtype}; expected one kind: give both as numbers or both as text"
        ) from error
    if shared:
        raise LinprobeError(
            f"{len(shared)} groups stand in both splits, {shared[0]!r} for one; expected "
            "every group on one side: move their samples"
        )
    return torch.from_numpy(number.astype(np.int64))


def read_weights(sample_weight: object, num_train: int) -> Tensor | None:
    """Read the weights of the training samples: (n_train,) float64, the largest one 1.

    Args:
        sample_weight: None, or a number from 0 on for each training sample.
        num_train: training samples.

    Raises:
        LinprobeError: No such numbers, or none above zero.
    """
    if sample_weight is None:
        return None
    given: Any = sample_weight
    try:
        values = (
            given.detach().cpu() if isinstance(given, Tensor) else array_tensor(np.array(given))
        )
        if values.is_complex():
            raise TypeError("complex ones don't count")
        weight = values.to(torch.float64, copy=True)
    except (TypeError, ValueError, RuntimeError) as error:
        raise LinprobeError(
            f"sample_weight is a {type(given).__name__} that holds no real numbers ({error}); "
            "expected one for each training sample"
        ) from error
    if weight.shape != (num_train,):
        raise LinprobeError(
            f"sample_weight has shape {tuple(weight.shape)}; expected ({num_train},), one number "
            "for each training sample (test samples have no weights)"
        )
    bad = ~(weight.isfinite() & (weight >= 0))
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise LinprobeError(
            f"{int(bad.sum())} numbers of sample_weight are negative or not finite, the first one "
            f"{float(weight[first])} for training sample {first}; expected numbers from 0 on"
        )
    if not bool(weight.any()):
        raise LinprobeError("sample_weight is zero for all samples; expected some above zero")
    return weight / weight.max()


def check_class_masses(labels: Tensor, sample_weight: Tensor, names: Sequence[str]) -> None:
    """Refuse classes whose training rows all weigh nothing, with a `LinprobeError`."""
    nothing = sorted(set(labels.tolist()) - set(labels[sample_weight > 0].tolist()))
    if nothing:
        count = int((labels == nothing[0]).sum())
        raise LinprobeError(
            f"all {count} training samples of class {names[nothing[0]]} have a sample_weight of "
            "zero; expected some weight in each class: to do without a class, leave its samples out"
        )


def _group_array(groups: Any, split: str) -> np.ndarray:
    """Read the groups of a split as an array that can be sorted."""
    try:
        array = np.asarray(groups.detach().cpu() if isinstance(groups, Tensor) else groups)
        array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
        np.unique(array)  # raises where they can't be sorted
        missing = bool((array != array).any())  # NaN and NaT
    except (TypeError, ValueError, RuntimeError) as error:
        raise LinprobeError(
            f"groups of the {split} samples are a {type(groups).__name__} that can't be read "
            f"({first_line(error)}); expected one number or one text for each sample"
        ) from error
    if missing:
        raise LinprobeError(
            f"groups of the {split} samples hold NaN; expected one group for each sample: give "
            "samples without one a group of their own"
        )
    return array


def _changed(split: str, what: str) -> str:
    return (
        f"the {split} data gives {what} the first time it was read; expected the same samples in "
        "the same order each time: give a list of batches, a Dataset or a DataLoader"
    )
