"""Arrays of strangers' containers: the same numbers, or one line that names the cure."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from PIL import Image

from linprobe import LinprobeError
from linprobe.data.inputs import Source
from linprobe.data.splits import read_groups
from tests.support.containers import OnDisk

X = torch.arange(22.0).view(11, 2)
Y = torch.arange(11) % 3
INDEX = np.arange(11.0)[::-1]  # slices of pandas' would go by it


class OtherTensor:
    """An array of a library that shares memory by DLPack alone."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __len__(self):
        return len(self.tensor)

    def __dlpack__(self, **options):
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


class Table:
    """What `datasets.Dataset` looks like: columns by name, rows as lists by slices."""

    def __init__(self, **columns):
        self.columns, self.column_names = columns, list(columns)

    def __len__(self):
        return len(self.columns["label"])

    def __getitem__(self, rows):
        return {name: column[rows] for name, column in self.columns.items()}


def read(data):
    batches = list(Source(data, "train", 4))
    inputs = [batch.kwargs["x"] if batch.kwargs else batch.args[0] for batch in batches]
    return torch.cat(inputs), torch.cat([batch.labels for batch in batches])


FRAME = pd.DataFrame(X.numpy(), index=INDEX)
SERIES = pd.Series(Y.numpy(), index=INDEX)
KINDS = {
    "data frame and series": (FRAME, SERIES),
    "dict of a frame": {"x": FRAME, "labels": SERIES},
    "list of tensors": (list(X), list(Y)),
    "list of arrays": (list(X.numpy()), Y.tolist()),
    "lists": (X.tolist(), Y.tolist()),
    "lists in lists": [X.tolist(), Y.tolist()],
    "dict of lists": {"x": X.tolist(), "labels": Y.tolist()},
    "array on disk": (OnDisk(X.numpy()), Y),
    "dlpack": (OtherTensor(X), Y),
    "table of lists": Table(x=X.tolist(), label=Y.tolist()),
    "table of tensors": Table(x=X, label=Y),
    "batches as lists": ([X[:5], Y[:5]], [X[5:], Y[5:]]),
    "batches as tuples": ((X[:5], Y[:5]), (X[5:], Y[5:])),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_container_gives_the_same_numbers(kind):
    for _ in range(2):
        x, y = read(KINDS[kind])
        assert torch.equal(x.double(), X.double()) and torch.equal(y, Y)


def test_an_array_on_disk_is_read_by_batches():
    x = OnDisk(X.numpy())
    source = Source((x, Y), "train", 4)
    list(source.labels())
    assert x.read == []
    assert len(list(source)) == 3 and x.read == [4, 4, 3]


TEXT = "holds text; tokenise it first and give a dict of the tokenizer's arrays"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((["a b"] * 11, Y), f"x of the train data {TEXT}"),
        ((pd.Series(["a b"] * 11), Y), f"x of the train data {TEXT}"),
        ((np.array(["a b"] * 11), Y), f"x of the train data {TEXT}"),
        ((pd.DataFrame({"a": ["b"] * 11, "c": Y}), Y), "dtype object, text.*leave other columns"),
        (FRAME, "train data is a DataFrame; give a pair: the columns of the inputs"),
        (([[1], [2, 3]] * 5 + [[1]], Y), r"differ in shape: \(1,\) first, \(2,\) at place 1.*mask"),
        (([torch.zeros(2, n) for n in (3, 3, 4)], [0, 1, 2]), r"\(2, 4\) at place 2.*pad, crop"),
        (([Image.new("L", (3, 3))] * 11, Y), r"images as PIL.Image.Image.*preprocessing makes"),
        ((scipy.sparse.csr_matrix(X.numpy()), Y), r"sparse csr_matrix; give x.toarray\(\)"),
        ((X.to_sparse(), Y), r"x of the train data is a sparse tensor; give x.to_dense\(\)"),
        (
            (torch.nested.nested_tensor(list(X), layout=torch.jagged), Y),
            "nested tensor; give torch.nested.to_padded",
        ),
        ((X.to("meta"), Y), "on the device 'meta', without values"),
        ([(X.to("meta"), Y)], "a train batch holds a tensor on the device 'meta'"),
        (((row for row in X), Y), "a train batch is a generator; expected"),
    ],
)
def test_what_holds_no_numbers_gets_one_line(data, message):
    with pytest.raises(LinprobeError, match=message) as raised:
        read(data)
    assert "\n" not in str(raised.value)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantised_tensors_get_one_line():
    x = torch.quantize_per_tensor(X, 0.1, 0, torch.qint8)
    with pytest.raises(LinprobeError, match=r"quantised tensor; give x.dequantize\(\)"):
        read((x, Y))


@pytest.mark.parametrize(
    "groups",
    [
        pd.Series([5, 5, 7], index=[9.0, 1.0, 2.0]),
        pd.DataFrame({"group": [5, 5, 7]}),
        torch.tensor([5, 5, 7]),
        ["b", "b", "c"],
        np.array([5, 5, 7], dtype=object),
    ],
)
def test_groups_of_every_container(groups):
    assert read_groups(groups, 3, 2).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([[1], [2, 3], [4]], "groups of the train samples are a list that can't be read"),
        ([None, "a", "b"], "groups of the train samples are a list that can't be read"),
        (([1, 2, 3], [None, "a"]), "groups of the test samples are a list that can't be read"),
        (pd.Series([1, None, 2]), "groups of the train samples hold NaN; expected one group"),
        (torch.eye(3).to_sparse(), "groups of the train samples are a Tensor that can't be read"),
    ],
)
def test_groups_that_can_not_be_read(groups, message):
    with pytest.raises(LinprobeError, match=message):
        read_groups(groups, 3, 2)
