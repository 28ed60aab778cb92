"""What people have their data in, turned into batches that come in one fixed order.

Data is one of

- ``(x, y)``: arrays or tensors with a sample a row; x may be a dict of them;
- a dict of such arrays, with its labels under "labels" or "label";
- a `Dataset`, or a `DataLoader`, which is rebuilt without shuffling over its data set;
- a list, or another iterable that can be read twice, of batches.

A batch is a tuple, whose last item is the labels and whose others are the network's arguments, or
a dict, whose "labels" or "label" are the labels and whose other items are keyword arguments. The
"attention_mask" of a dict says which tokens count.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
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

from linprobe.errors import LinprobeError

LABEL_KEYS = ("labels", "label")
MASK_KEY = "attention_mask"
_EXPECTED = (
    "expected (x, y) arrays, a Dataset, a DataLoader, or a list of batches "
    "(x, labels) or {'labels': ..., ...}"
)


@dataclass(frozen=True)
class Batch:
    """Some samples.

    Attributes:
        raw: as the data gave it, arrays turned into tensors.
        args: positional arguments of the network.
        kwargs: keyword arguments of the network.
        labels: (n_samples,), or (n_samples, n_tokens).
        mask: (n_samples, n_tokens), nonzero where a token counts; None: there is none.
    """

    raw: object
    args: tuple[object, ...]
    kwargs: dict[str, object]
    labels: Tensor
    mask: Tensor | None

    @classmethod
    def read(cls, raw: object, split: str) -> "Batch":
        """Take a batch of the `split` apart.

        Raises:
            LinprobeError: It is neither a tuple nor a dict with labels.
        """
        raw = _map(raw, lambda tensor: tensor)  # arrays become tensors
        if isinstance(raw, Mapping):
            key = next((key for key in LABEL_KEYS if key in raw), None)
            if key is None:
                names = ", ".join(map(repr, raw))
                raise LinprobeError(
                    f"a {split} batch has the keys {names}; expected its labels under 'labels'"
                )
            inputs = {str(name): item for name, item in raw.items() if name != key}
            return cls(raw, (), inputs, _labels(raw[key], split), _mask(inputs))
        if isinstance(raw, tuple | list) and len(raw) >= 2:
            *args, labels = raw
            if len(args) == 1 and isinstance(args[0], Mapping):
                inputs = {str(name): item for name, item in args[0].items()}
                return cls(raw, (), inputs, _labels(labels, split), _mask(inputs))
            return cls(raw, tuple(args), {}, _labels(labels, split), None)
        raise LinprobeError(
            f"a {split} batch is a {type(raw).__name__}; expected (x, labels), or a dict with "
            "'labels'"
        )

    def __len__(self) -> int:
        return len(self.labels)

    def head(self, count: int) -> "Batch":
        """The first samples, where all is tensors with a row a sample; else the whole batch."""
        rows = [leaf.shape[:1] if isinstance(leaf, Tensor) else None for leaf in _leaves(self.raw)]
        if any(row != (len(self),) for row in rows):
            return self
        return Batch.read(_map(self.raw, lambda tensor: tensor[:count]), "data")

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> "Batch":
        """On that device, the network's arguments in that floating dtype where they have one."""

        def cast(tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype if tensor.is_floating_point() else None)

        return Batch(
            _map(self.raw, lambda tensor: tensor.to(device)),
            tuple(_map(value, cast) for value in self.args),
            {name: _map(value, cast) for name, value in self.kwargs.items()},
            self.labels,
            self.mask,
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
        if batch_size < 1:
            raise LinprobeError(f"batch_size is {batch_size}; expected at least 1")
        self.split = split
        inner = data.dataset if isinstance(data, DataLoader) else data
        self.kind = type(inner).__name__ if isinstance(inner, Dataset) else "arrays"
        self._open = _opener(data, split, batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for raw in self._open():
            yield Batch.read(raw, self.split)


def example_batch(example: object) -> Batch:
    """The batch that `linprobe.layers` runs: an input, a batch, or the first batch of data."""
    if isinstance(example, Tensor | np.ndarray):
        return Batch.read((example, torch.zeros(len(example), dtype=torch.int64)), "example")
    if isinstance(example, Mapping):
        inputs = dict(example)
        if not any(key in inputs for key in LABEL_KEYS):
            arrays = [leaf for leaf in _leaves(inputs) if isinstance(leaf, Tensor | np.ndarray)]
            inputs["labels"] = torch.zeros(len(arrays[0]) if arrays else 1, dtype=torch.int64)
        return Batch.read(inputs, "example")
    if isinstance(example, tuple):
        return Batch.read(example, "example")
    for batch in Source(example, "example", 2):
        return batch
    raise LinprobeError("the example holds no batch; expected at least one sample")


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
    if isinstance(x, Tensor | np.ndarray):
        return not isinstance(y, Mapping)
    return isinstance(x, Mapping) and not isinstance(y, Mapping) and not _is_batch(y)


def _is_batch(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], Mapping)


class _Slices:
    """Batches of arrays that have a row a sample."""

    def __init__(self, data: object, split: str, batch_size: int) -> None:
        self._data, self._batch_size = data, batch_size
        if isinstance(data, Mapping):
            named = dict(data)
        else:
            assert isinstance(data, tuple | list)
            x, y = data
            named = {**(dict(x) if isinstance(x, Mapping) else {"x": x}), "labels": y}
        lengths = {str(name): len(value) for name, value in named.items()}
        self._count = next(iter(lengths.values()), 0)
        if len(set(lengths.values())) > 1:
            sizes = ", ".join(f"{name} has {size:,}" for name, size in lengths.items())
            raise LinprobeError(
                f"{split} arrays differ in length: {sizes}; expected a row a sample"
            )

    def __call__(self) -> Iterator[object]:
        for start in range(0, self._count, self._batch_size):
            yield _slice(self._data, slice(start, start + self._batch_size))


def _slice(value: Any, rows: slice) -> object:
    if isinstance(value, Mapping):
        return {name: item[rows] for name, item in value.items()}
    x, y = value
    return (_slice(x, rows) if isinstance(x, Mapping) else x[rows], y[rows])


def _in_order(loader: DataLoader[Any], split: str, batch_size: int) -> Iterable[object]:
    """The loader's batches, not shuffled, none dropped."""
    own: dict[str, Any] = {
        "collate_fn": loader.collate_fn,
        "num_workers": loader.num_workers,
        "worker_init_fn": loader.worker_init_fn,
        "multiprocessing_context": loader.multiprocessing_context,
        "timeout": loader.timeout,
        "generator": torch.Generator(),
    }
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


def _labels(value: object, split: str) -> Tensor:
    if not isinstance(value, Tensor):
        try:
            value = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise LinprobeError(
                f"{split} labels are a {type(value).__name__} that holds no numbers ({error}); "
                "expected class numbers from 0 on"
            ) from error
    if value.ndim == 0:
        raise LinprobeError(
            f"the labels of a {split} batch are one number; expected one for each sample: put "
            "single samples into batches by a DataLoader"
        )
    return value


def _mask(inputs: Mapping[str, object]) -> Tensor | None:
    mask = inputs.get(MASK_KEY)
    return mask if isinstance(mask, Tensor) and mask.ndim == 2 else None


def _map(value: object, change: Callable[[Tensor], Tensor]) -> Any:
    """A nest of containers with each tensor changed; arrays become tensors first."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        # Copied: PyTorch warns of arrays that can't be written to, such as mapped files.
        return change(torch.from_numpy(np.array(value)))
    if isinstance(value, Mapping):
        return {name: _map(item, change) for name, item in value.items()}
    if type(value) is list:
        return [_map(item, change) for item in value]
    if type(value) is tuple:  # not its subclasses, which take their items otherwise
        return tuple(_map(item, change) for item in value)
    return value


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif type(value) is list or type(value) is tuple:
        for item in value:
            yield from _leaves(item)
    else:
        yield value
