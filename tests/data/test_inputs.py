"""Data of every kind comes in one order, whatever shuffles it."""

import numpy as np
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from linprobe import LinprobeError
from linprobe.data.inputs import Source

X = torch.arange(22.0).view(11, 2)
Y = torch.arange(11) % 3


class Stream(IterableDataset):
    def __iter__(self):
        return zip(X, Y, strict=True)


class Words(Dataset):
    def __len__(self):
        return 11

    def __getitem__(self, i):
        return {"x": X[i], "labels": int(Y[i])}


def collate(samples):
    x, y = zip(*samples, strict=True)
    return {"x": torch.stack(x) + 100, "labels": torch.stack(y)}


def read(data, batch_size=4):
    batches = list(Source(data, "train", batch_size))
    inputs = [batch.kwargs["x"] if batch.kwargs else batch.args[0] for batch in batches]
    return torch.cat(inputs), torch.cat([batch.labels for batch in batches])


TENSORS = TensorDataset(X, Y)
KINDS = {
    "tensors": (X, Y),
    "arrays": (X.numpy(), Y.numpy()),
    "list of labels": (X, Y.tolist()),
    "list of two": [X, Y],
    "dict": {"x": X, "labels": Y},
    "dict and labels": ({"x": X}, Y),
    "dataset": TENSORS,
    "dataset of dicts": Words(),
    "loader": DataLoader(TENSORS, 3),
    "shuffling loader": DataLoader(TENSORS, 3, shuffle=True, drop_last=True),
    "loader of a stream": DataLoader(Stream(), 3),
    "batches": [(X[:5], Y[:5]), (X[5:], Y[5:])],
    "batches of dicts": [{"x": X[:5], "label": Y[:5]}, {"x": X[5:], "label": Y[5:]}],
    "batches with a dict": [({"x": X[:5]}, Y[:5]), ({"x": X[5:]}, Y[5:])],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_all_samples_in_order_each_time(kind):
    state = torch.random.get_rng_state()
    source = KINDS[kind]
    for _ in range(2):
        x, y = read(source)
        assert torch.equal(x, X) and torch.equal(y, Y)
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_loader_keeps_its_collate_function_and_subset():
    loader = DataLoader(TENSORS, 3, shuffle=True, collate_fn=collate)
    assert torch.equal(read(loader)[0], X + 100)
    half = DataLoader(Subset(TENSORS, [8, 2, 5]), 2, shuffle=True)
    assert torch.equal(read(half)[0], X[[8, 2, 5]])
    drawn = DataLoader(TENSORS, 2, sampler=SubsetRandomSampler([7, 1, 4]))
    assert torch.equal(read(drawn)[0], X[[1, 4, 7]])


def test_a_loader_whose_order_is_unknown_is_refused():
    loader = DataLoader(TENSORS, 2, sampler=WeightedRandomSampler([1.0] * 11, 11))
    with pytest.raises(LinprobeError, match=r"train DataLoader draws by a WeightedRandomSampler"):
        read(loader)


def test_kinds_are_named_for_the_record():
    assert Source(DataLoader(TENSORS), "train", 4).kind == "TensorDataset"
    assert Source((X, Y), "train", 4).kind == "arrays"


def test_a_mapped_file_is_read(tmp_path):
    np.save(tmp_path / "x.npy", X.numpy())
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert torch.equal(read((x, Y))[0], X)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (iter([(X, Y)]), "the train data is a list_iterator, which can be read only once"),
        ((b for b in [(X, Y)]), "is a generator, which can be read only once; give a list"),
        (X, "the train data is a Tensor; expected .x, y. arrays, a Dataset"),
        (None, "the train data is a NoneType; expected"),
        ((X, Y[:5]), "train arrays differ in length: x has 11, labels has 5"),
        ({"x": X, "labels": Y[:5]}, "train arrays differ in length: x has 11, labels has 5"),
        ([X], "a train batch is a Tensor; expected .x, labels."),
        ([{"x": X}], "a train batch has the keys 'x'; expected its labels under 'labels'"),
        ([(X, torch.tensor(3))], "labels of a train batch are one label.*by a DataLoader"),
        ([(X[0], 1), (X[1], 2)], "labels of a train batch are one label"),
        ([(X, ["a", 2])], "train labels hold both 'a' and 2; expected one kind"),
    ],
)
def test_other_data_is_refused(data, message):
    with pytest.raises(LinprobeError, match=message):
        read(data)


def test_batch_size_is_checked():
    with pytest.raises(LinprobeError, match="batch_size is 0; expected a whole number"):
        read((X, Y), 0)


class Counting(np.ndarray):
    """An array that counts how often it is read."""

    reads = 0

    def __getitem__(self, rows):
        Counting.reads += 1
        return np.asarray(self)[rows]


@pytest.mark.parametrize("kind", ["pair", "dict", "dict and labels"])
def test_labels_of_arrays_are_read_without_their_inputs(kind):
    x, mask = X.numpy().view(Counting), torch.ones(11, 2)
    named = {"x": x, "attention_mask": mask}
    data = {"pair": (x, Y), "dict": {**named, "label": Y}, "dict and labels": (named, Y)}[kind]
    source = Source(data, "train", 4)
    Counting.reads = 0
    found = list(source.labels())
    assert Counting.reads == 0
    assert torch.equal(torch.cat([batch.labels for batch in found]), Y)
    if kind != "pair":
        assert torch.equal(torch.cat([batch.mask for batch in found]), mask)
    assert len(list(source)) == Counting.reads == 3
