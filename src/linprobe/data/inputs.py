"""Data in its common containers, read as batches in one fixed order.

Data is one of

- ``(x, y)``: arrays or tensors with one row per sample, data frames, or lists of equal rows; x may
  be a dict of them;
- a dict of such arrays, with its labels under "labels" or "label";
- a data set of Hugging Face `datasets`, whose columns are numbers;
- a `Dataset`, or a `DataLoader`, which is rebuilt without shuffling over its data set;
- a list, or another iterable that can be read twice, of batches.

A batch is a tuple, whose last item is the labels and whose others are the network's arguments, or
a dict, whose "labels" or "label" are the labels and whose other items are keyword arguments. The
"attention_mask" of a dict says which tokens count.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
)

from linprobe.data.batches import LABEL_KEYS, MASK_KEY, Batch, label_key, leaves
from linprobe.data.containers import (
    as_rows,
    holds_labels,
    holds_samples,
    holds_text,
    is_array,
    read_rows,
)
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.fingerprint import Fingerprint
from linprobe.runtime.numbers import whole_number
from linprobe.runtime.text import cause

_KEPT = ("collate_fn", "num_workers", "worker_init_fn", "multiprocessing_context", "timeout")
_EXPECTED = (
    "expected (x, y) arrays, a Dataset, a DataLoader, or a list of batches "
    "(x, labels) or {'labels': ..., ...}"
)


class Source:
    """Batches of a split, in the same order each time they are read.

    Args:
        data: as the module says.
        split: "train" or "test", for messages.
        batch_size: where the data doesn't come in batches.

    Attributes:
        hashed: receives all data while its labels are read; None: nothing does.

    Raises:
        LinprobeError: Data of another kind, or arrays of different lengths.
    """

    def __init__(self, data: object, split: str, batch_size: int) -> None:
        batch_size = whole_number("batch_size", batch_size, 1)
        self.split = split
        inner = data.dataset if isinstance(data, DataLoader) else data
        self.kind = type(inner).__name__ if isinstance(inner, Dataset) else "arrays"
        self.classes = _class_names(inner)
        self.hashed: Fingerprint | None = None
        self._open = _opener(data, split, batch_size)

    def __iter__(self) -> Iterator[Batch]:
        yield from self._read(self._open)

    @property
    def is_arrays(self) -> bool:
        """Tell whether it is arrays, which are the same at each pass."""
        return isinstance(self._open, _Slices)

    def first(self) -> Batch:
        """Return the first batch of data read before, or raise `LinprobeError`: it gives none."""
        for batch in self:
            return batch
        raise LinprobeError(
            f"the {self.split} data gives no batch when it is read again; expected data that can "
            "be read twice: a list of batches, a Dataset or a DataLoader"
        )

    def labels(self) -> Iterator[Batch]:
        """Yield the same batches for their labels and masks; of arrays, nothing else is read."""
        opened = self._open
        if isinstance(opened, _Slices):
            if self.hashed is not None:
                for raw in opened():  # one at a time: they may lie on disk
                    self.hashed.add(raw)
            opened = opened.of_labels()
        for batch in self._read(opened):
            if self.hashed is not None:
                self.hashed.add(batch.raw)
            yield batch

    def _read(self, opened: Callable[[], Iterable[object]]) -> Iterator[Batch]:
        given, done = opened(), 0
        batches = iter(given)
        while True:
            try:
                raw = next(batches)
            except StopIteration:
                return
            except LinprobeError:
                raise
            except Exception as error:
                raise _failure(given, done, self.split, error) from error
            batch = Batch.read(raw, self.split)
            yield batch
            done += len(batch)


def _failure(given: object, done: int, split: str, error: Exception) -> LinprobeError:
    """Say which sample fails, by reading those of the batch again one by one."""
    if isinstance(given, DataLoader) and not isinstance(given.dataset, IterableDataset):
        dataset: Any = given.dataset
        stop = min(done + (given.batch_size or 1), len(dataset))
        for place in range(done, stop):
            try:
                dataset[place]
            except Exception as own:
                return LinprobeError(f"sample {place} of the {split} data fails: {cause(own)}")
        return LinprobeError(
            f"samples {done} to {stop - 1} of the {split} data can't be put into one batch: "
            f"{cause(error)}; expected samples of one shape, or a DataLoader whose collate_fn pads "
            "them"
        )
    return LinprobeError(f"the {split} data fails after {done} samples: {cause(error)}")


def example_batch(example: object) -> Batch:
    """Make the batch that `linprobe.layers` runs, of an input, a batch, or data."""
    if isinstance(example, Tensor | np.ndarray):
        return Batch.read((example, torch.zeros(len(example), dtype=torch.int64)), "example")
    if isinstance(example, Mapping) and not any(key in example for key in LABEL_KEYS):
        arrays = [leaf for leaf in leaves(example) if isinstance(leaf, Tensor | np.ndarray)]
        count = len(arrays[0]) if arrays else 1
        example = {**example, "labels": torch.zeros(count, dtype=torch.int64)}
    if isinstance(example, Mapping | tuple):
        return Batch.read(example, "example")
    batch = next(iter(Source(example, "example", 2)), None)
    if batch is None:
        raise LinprobeError("the example holds no batch; expected at least one sample")
    return batch


def _class_names(data: object) -> tuple[str, ...]:
    """Names of the labels 0, 1, ... as data sets of torchvision have them; (): none."""
    while isinstance(data, Subset):
        data = data.dataset
    names = getattr(data, "classes", None)
    known = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return tuple(names) if known and len(set(names)) == len(names) else ()  # type: ignore[arg-type]


def _opener(data: object, split: str, batch_size: int) -> Callable[[], Iterable[object]]:
    if hasattr(data, "column_names") and hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return _Slices(_columns(data), split, batch_size)
    if hasattr(data, "iloc"):
        raise LinprobeError(
            f"the {split} data is a {type(data).__name__}; give a pair: the columns of the inputs "
            "and the column of the labels"
        )
    if isinstance(data, DataLoader):
        return lambda: _in_order(data, split, batch_size)
    if isinstance(data, Dataset):
        if not isinstance(data, IterableDataset) and not hasattr(data, "__len__"):
            raise LinprobeError(
                f"the {split} data is a {type(data).__name__} without __len__; expected one that "
                "says how many samples it has, or an IterableDataset"
            )
        # A generator of its own: a loader would draw a seed from the global one.
        return lambda: DataLoader(data, batch_size, generator=torch.Generator())
    if isinstance(data, Mapping) or _is_pair(data):
        return _Slices(data, split, batch_size)
    if isinstance(data, Iterator):
        raise LinprobeError(
            f"the {split} data is a {type(data).__name__}, which can be read only once; give a "
            "list of batches, a Dataset or a DataLoader"
        )
    if isinstance(data, Iterable) and not isinstance(data, Tensor | np.ndarray | str):
        return lambda: data
    raise LinprobeError(f"the {split} data is a {type(data).__name__}; {_EXPECTED}")


def _is_pair(data: object) -> bool:
    if not isinstance(data, tuple | list) or len(data) != 2:
        return False
    x, y = data
    if isinstance(x, Mapping):
        return not isinstance(y, Mapping) and not (
            isinstance(y, tuple) and len(y) == 2 and isinstance(y[0], Mapping)
        )
    if is_array(x) or hasattr(x, "nnz"):
        return not isinstance(y, Mapping)
    return holds_samples(x) and holds_labels(y)


def _columns(table: Any) -> dict[str, Any]:
    """Columns of a table of Hugging Face's, which give arrays when they are sliced."""
    return {name: _Column(table, name) for name in table.column_names}


class _Column:
    """One column of a table, of which only the rows asked for are read."""

    def __init__(self, table: Any, name: str) -> None:
        self._table, self._name = table, name
        self.shape, self.dtype = (len(table),), np.dtype(object)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, rows: slice) -> Any:
        read = self._table[rows][self._name]
        given = self._name in LABEL_KEYS or holds_text(read)
        return read if given else as_rows(read, f"column {self._name!r}")


class _Slices:
    """Batches of arrays with one row per sample."""

    def __init__(self, data: Any, split: str, batch_size: int) -> None:
        self._split, self._batch_size = split, batch_size
        self._is_dict, self._is_pair = isinstance(data, Mapping), False
        if self._is_dict:
            named = dict(data)
        else:
            x, y = data
            self._is_pair = not isinstance(x, Mapping)
            named = {**({"x": x} if self._is_pair else x), "labels": y}
        self._key = label_key(named, f"the {split} data")
        for name, value in named.items():
            if not hasattr(value, "__len__") or getattr(value, "ndim", 1) == 0:
                raise LinprobeError(
                    f"{name} of the {split} data is a {type(value).__name__}; expected an array "
                    "with one row per sample"
                )
            if self._is_dict and holds_text(value):
                continue  # for a `forward` that tokenises it
            if name != self._key:
                named[name] = as_rows(value, f"{name} of the {split} data")
            elif hasattr(value, "iloc"):  # whose slices go by an index of their own
                named[name] = value.to_numpy()
        self._named = named
        lengths = {str(name): len(value) for name, value in named.items()}
        self._count = next(iter(lengths.values()), 0)
        if len(set(lengths.values())) > 1:
            sizes = ", ".join(f"{name} has {size:,}" for name, size in lengths.items())
            raise LinprobeError(
                f"{split} arrays differ in length: {sizes}; expected one row per sample"
            )

    def of_labels(self) -> "_Slices":
        wanted = [name for name in (*LABEL_KEYS, MASK_KEY) if name in self._named]
        found = {name: self._named[name] for name in wanted}
        return _Slices(found, self._split, self._batch_size)

    def __call__(self) -> Iterator[object]:
        for start in range(0, self._count, self._batch_size):
            rows = slice(start, start + self._batch_size)
            batch = {
                name: value[rows]
                if name == self._key or holds_text(value)
                else read_rows(value[rows])
                for name, value in self._named.items()
            }
            if self._is_dict:
                yield batch
            else:
                labels = batch.pop(self._key)
                yield (batch["x"] if self._is_pair else batch, labels)


def _in_order(loader: DataLoader[Any], split: str, batch_size: int) -> Iterable[object]:
    """Read the loader's batches without shuffling and without dropping any."""
    own: dict[str, Any] = {name: getattr(loader, name) for name in _KEPT}
    own["generator"] = torch.Generator()
    if isinstance(loader.dataset, IterableDataset):
        return DataLoader(loader.dataset, batch_size=loader.batch_size, **own)
    if type(loader.batch_sampler) not in (BatchSampler, type(None)):
        return DataLoader(loader.dataset, batch_size=batch_size, **own)
    dataset, sampler = loader.dataset, loader.sampler
    if isinstance(sampler, SubsetRandomSampler):
        dataset = Subset(dataset, sorted(sampler.indices))
    elif type(sampler) not in (RandomSampler, SequentialSampler):
        raise LinprobeError(
            f"the {split} DataLoader draws by a {type(sampler).__name__}, whose order can't be "
            "fixed; give its Dataset, or a Subset of it"
        )
    return DataLoader(dataset, batch_size=loader.batch_size, **own)
