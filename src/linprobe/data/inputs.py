"""Data in its common containers, read as batches in one fixed order.

Data is one of

- ``(x, y)``: arrays or tensors with one row per sample; x may be a dict of them;
- a dict of such arrays, with its labels under "labels" or "label";
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
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.numbers import whole_number

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

    Raises:
        LinprobeError: Data of another kind, or arrays of different lengths.
    """

    def __init__(self, data: object, split: str, batch_size: int) -> None:
        batch_size = whole_number("batch_size", batch_size, 1)
        self.split = split
        inner = data.dataset if isinstance(data, DataLoader) else data
        self.kind = type(inner).__name__ if isinstance(inner, Dataset) else "arrays"
        self.classes = _class_names(inner)
        self._open = _opener(data, split, batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for raw in self._open():
            yield Batch.read(raw, self.split)

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
        opened = self._open.of_labels() if isinstance(self._open, _Slices) else self._open
        for raw in opened():
            yield Batch.read(raw, self.split)


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
    if isinstance(data, DataLoader):
        return lambda: _in_order(data, split, batch_size)
    if isinstance(data, Dataset):
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
    y_is_batch = isinstance(y, tuple) and len(y) == 2 and isinstance(y[0], Mapping)
    is_array = isinstance(x, Tensor | np.ndarray) or (isinstance(x, Mapping) and not y_is_batch)
    return is_array and not isinstance(y, Mapping)


class _Slices:
    """Batches of arrays with one row per sample."""

    def __init__(self, data: Any, split: str, batch_size: int) -> None:
        self._data, self._split, self._batch_size = data, split, batch_size
        named = data
        if not isinstance(data, Mapping):
            x, y = data
            named = {**(x if isinstance(x, Mapping) else {"x": x}), "labels": y}
        self._named = named
        label_key(named, f"the {split} data")
        for name, value in named.items():
            if not hasattr(value, "__len__"):
                raise LinprobeError(
                    f"{name} of the {split} data is a {type(value).__name__}; expected an array "
                    "with one row per sample"
                )
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
            yield _slice(self._data, slice(start, start + self._batch_size))


def _slice(value: Any, rows: slice) -> object:
    if isinstance(value, Mapping):
        return {name: item[rows] for name, item in value.items()}
    x, y = value
    return (_slice(x, rows) if isinstance(x, Mapping) else x[rows], y[rows])


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
