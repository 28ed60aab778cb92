"""Labels of any kind, and the classes that occur."""

from enum import Enum

import numpy as np
import pandas as pd
import pytest
import torch

from linprobe import LinprobeError
from linprobe.data.inputs import Source
from linprobe.data.labels import number_classes, read_labels
from linprobe.data.splits import Split

PLACES = [1, 0, 2, 1, 0]
TEXTS = ["b", "a", "c", "b", "a"]
INTS = [3, -7, 9, 3, -7]
KINDS = {
    "list of text": TEXTS,
    "tuple of text": tuple(TEXTS),
    "array of text": np.array(TEXTS),
    "array of bytes": np.array(TEXTS, "S"),
    "list of bytes": [text.encode() for text in TEXTS],
    "array of objects": np.array(TEXTS, object),
    "array of variable text": np.array(TEXTS, np.dtypes.StringDType()),
    "series of text": pd.Series(TEXTS),
    "series of pandas' text": pd.Series(TEXTS, dtype="string"),
    "series with another index": pd.Series(TEXTS, index=[9, 9, 3, 2, 0]),
    "categorical": pd.Categorical(TEXTS),
    "series of categories": pd.Series(TEXTS, dtype="category"),
    "list": INTS,
    "array": np.array(INTS),
    "int8": np.array(INTS, np.int8),
    "big-endian": np.array(INTS, ">i2"),
    "floats": np.array(INTS, float),
    "half floats": torch.tensor(INTS).bfloat16(),
    "NumPy's half floats": np.array(INTS, np.float16),
    "long doubles": np.array(INTS, np.longdouble),
    "tensor": torch.tensor(INTS, dtype=torch.int32),
    "tensors": [torch.tensor(value) for value in INTS],
    "numbers as objects": np.array(INTS, object),
    "series": pd.Series(INTS),
    "nullable": pd.Series(INTS, dtype="Int64"),
    "categories of numbers": pd.Series(INTS, dtype="category"),
}


def classes_of(value, test=None):
    train, names = read_labels(value, "train")
    other, other_names = read_labels(value if test is None else test, "test")
    return number_classes(train, other, (names, other_names))


@pytest.mark.parametrize("kind", KINDS)
def test_classes_are_numbered_in_sorted_order_and_keep_their_names(kind):
    found = classes_of(KINDS[kind])
    assert found.train.tolist() == found.test.tolist() == PLACES
    assert found.train.dtype == torch.int64 and found.notes == ()
    assert found.names == (("-7", "3", "9") if "3" in found.names else ("a", "b", "c"))


@pytest.mark.parametrize(
    "value",
    [
        [True, False, True],
        np.array([True, False, True]),
        torch.tensor([True, False, True]),
        np.array([True, False, True], object),
        pd.Series([True, False, True], dtype="boolean"),
    ],
)
def test_truth_values_are_two_classes(value):
    found = classes_of(value)
    assert found.train.tolist() == [1, 0, 1] and found.names == ("False", "True")


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.uint16, torch.uint64, torch.int8, torch.int64]
)
def test_tensors_of_whole_numbers(dtype):
    found = classes_of(torch.tensor([1, 2, 1, 100], dtype=dtype))
    assert found.train.tolist() == [0, 1, 0, 2] and found.names == ("1", "2", "100")


def test_classes_of_one_split_only_are_classes():
    found = classes_of(["b", "a", "b"], ["c", "a"])
    assert found.names == ("a", "b", "c")
    assert found.train.tolist() == [1, 0, 1] and found.test.tolist() == [2, 0]


def test_classes_that_were_said_keep_their_numbers():
    found = number_classes(torch.tensor([0, 1, 1, 0, 1]), torch.tensor([1]), num_classes=4)
    assert found.names == ("0", "1", "2", "3") and found.train.tolist() == [0, 1, 1, 0, 1]
    assert found.notes == ("No sample is of class 2, 3.",)


@pytest.mark.parametrize(
    ("labels", "notes"),
    [
        ([1, 2, 3], ()),
        ([10, 20, 30], ()),
        ([-1, 1], ()),
        ([0, 1, 3], ("No sample has label 2: the 3 labels that occur are classes.",)),
        (
            [-1, 0, 1],
            ("Label -1 counts as a class; if it means no label, leave these samples out.",),
        ),
    ],
)
def test_what_is_unusual_about_numbers_is_said(labels, notes):
    assert classes_of(labels).notes == notes


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([0, 1, 0.5], "train labels hold 0.5; expected a class for each sample: whole numbers, te"),
        ([0, float("nan"), 1, np.nan], "2 of 4 train labels are missing, the first at place 1; ex"),
        (["a", None, "b"], "1 of 3 train labels are missing, the first at place 1; expected"),
        (pd.Series([1, None], dtype="Int64"), "1 of 2 train labels are missing, the first at"),
        (np.ma.masked_equal([0, 1, 2, 2], 2), "2 of 4 train labels are missing, the first at"),
        (np.array([0, np.inf], np.float16), "train labels hold inf; expected a class"),
        (pd.Categorical(["a", None]), "1 of 2 train labels are missing"),
        (["a", 1], "train labels hold both 'a' and 1; expected one kind: text, or numbers"),
        ([1j, 2j], "train labels have dtype complex128; expected a class"),
        (torch.zeros(2, dtype=torch.complex64), "train labels have dtype complex64"),
        ([[1], [2, 3]], "train labels are a list that can't be read"),
        ([Enum("Colour", "RED").RED], "train labels hold a Colour; expected a class"),
        (np.array([0, 2**64 - 1], np.uint64), "train labels hold 18446744073709551615; expected"),
        (torch.zeros(2, device="meta"), "train labels are a Tensor that can't be read"),
        (np.array(["2020-01-01"], "M8[D]"), "train labels have dtype datetime64"),
        ([0, 1, -100], "train labels hold -100, which means no label in PyTorch"),
        (["a", "b", "-100"], "train labels hold -100, which means no label in PyTorch"),
        (["a", "a"], r"the train labels are of one class only \(a\); expected at least two"),
    ],
)  # fmt: skip
def test_labels_that_can_not_be_used(value, message):
    with pytest.raises(LinprobeError, match=message) as caught:
        classes_of(value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("train", "test", "count", "message"),
    [
        ([0, -1], [0], 2, "train labels hold -1; expected class numbers from 0 to 1"),
        ([0, 1, 5], [0], 3, "train labels hold 5; expected class numbers from 0 to 2"),
        ([0, 1, 2], [3], 3, "test labels hold 3; expected class numbers from 0 to 2"),
        ([0, 1], [0], 5, "2 training samples for 5 classes"),
    ],
)
def test_labels_that_do_not_fit_their_classes(train, test, count, message):
    with pytest.raises(LinprobeError, match=message):
        number_classes(torch.tensor(train), torch.tensor(test), num_classes=count)


def test_text_is_refused_where_class_numbers_were_said_and_beside_numbers():
    (train, names), (test, others) = read_labels(["a", "b"], "train"), read_labels([0, 1], "test")
    with pytest.raises(
        LinprobeError, match=r"train labels hold '[ab]'; expected class numbers from"
    ):
        number_classes(train, train, (names, names), 2)
    with pytest.raises(LinprobeError, match="of one split are text, those of the other numbers"):
        number_classes(train, test, (names, others))


class Pictures(torch.utils.data.Dataset):
    """As data sets of torchvision are: numbers, and the names of all classes."""

    def __init__(self, classes, labels):
        self.classes, self.labels = classes, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return torch.zeros(2), self.labels[i]


def named_classes(*splits):
    found = [Split.read(Source(data, "train", 2), "mean") for data in splits]
    return number_classes(*(part.labels for part in found), tuple(part.names for part in found))


def test_a_data_set_names_its_classes():
    names = ["plane", "car", "bird"]
    train = Pictures(names, [0, 2, 2, 0])
    found = named_classes(train, torch.utils.data.Subset(Pictures(names, [2, 0]), [0]))
    assert found.names == ("plane", "bird") and found.train.tolist() == [0, 1, 1, 0]
    assert found.notes == ("No sample is of class car: 2 classes are left.",)


def test_folders_of_other_classes_are_told_apart_by_name():
    """A test folder without cats numbers its dogs as the training folder its cats."""
    found = named_classes(Pictures(["cat", "dog"], [0, 1, 1]), Pictures(["dog", "emu"], [0, 1]))
    assert found.names == ("cat", "dog", "emu")
    assert found.train.tolist() == [0, 1, 1] and found.test.tolist() == [1, 2]


def test_text_of_tokens():
    labels = [["DET", "NOUN", -100], ["NOUN", "-100", "VERB"]]
    data = {"x": torch.zeros(2, 3, 4), "labels": labels}
    found = Split.read(Source(data, "train", 1), "all")
    named = number_classes(found.labels, found.labels, (found.names, found.names))
    assert named.names == ("DET", "NOUN", "VERB") and named.train.tolist() == [0, 1, 1, 2]
    assert found.sequence.tolist() == [0, 0, 1, 1]
