"""Labels are read once, checked, and compared each time the data is read again."""

import pytest
import torch

from linprobe import LinprobeError
from linprobe.data.inputs import Source
from linprobe.data.splits import Split, read_groups

X = torch.zeros(5, 2)


def split(labels, tokens="mean", **more):
    x = torch.zeros(len(labels), 2)
    return Split.read(Source({"x": x, "labels": labels, **more}, "train", 2), tokens)


class Changing:
    """Another length or other labels each time it is read."""

    def __init__(self, *readings):
        self.readings = list(readings)

    def __iter__(self):
        return iter(self.readings.pop(0))


def test_a_row_a_sample():
    found = split(torch.tensor([2, 0, 1, 1, 2], dtype=torch.uint8))
    assert found.labels.tolist() == [2, 0, 1, 1, 2] and found.labels.dtype is torch.int64
    assert found.sequence.tolist() == [0, 1, 2, 3, 4] and found.num_samples == 5
    assert [rows for _, rows in found.batches()] == [slice(0, 2), slice(2, 4), slice(4, 5)]


def test_a_row_a_labelled_token():
    labels = torch.tensor([[0, 1, -100], [-100, 2, 2], [1, -100, -100]])
    found = split(labels, "all")
    assert found.labels.tolist() == [0, 1, 2, 2, 1]
    assert found.sequence.tolist() == [0, 0, 1, 1, 2] and found.num_samples == 3
    assert [rows for _, rows in found.batches()] == [slice(0, 4), slice(4, 5)]
    masked = split(labels, "all", attention_mask=torch.tensor([[1, 0, 0]]).expand(3, 3))
    assert masked.labels.tolist() == [0, 1]


def test_labels_of_tokens_are_for_all_tokens_only():
    with pytest.raises(LinprobeError, match=r"train labels have shape \(2, 3\).*tokens='all'"):
        split(torch.zeros(5, 3, dtype=torch.int64))


@pytest.mark.parametrize("data", [[], [(X[:0], torch.zeros(0, dtype=torch.int64))]])
def test_no_samples(data):
    with pytest.raises(LinprobeError, match="the train data is empty"):
        Split.read(Source(data, "train", 2), "mean")
    with pytest.raises(LinprobeError, match="the train data is empty"):
        split(torch.full((2, 3), -100), "all")


def test_data_that_changes_between_readings():
    y = torch.tensor([0, 1, 2, 0, 1])
    found = Split.read(Source(Changing([(X, y)], [(X, y.flip(0))]), "test", 2), "mean")
    with pytest.raises(LinprobeError, match="the test data gives other labels than the first time"):
        list(found.batches())
    once = Split.read(Source(Changing([(X, y)], []), "test", 2), "mean")
    with pytest.raises(LinprobeError, match="the test data gives 0 samples after 5 the first time"):
        list(once.batches())


def test_groups_are_numbered():
    assert read_groups(None, 3, 2) is None
    assert read_groups(["b", "a", "b"], 3, 2).tolist() == [1, 0, 1]
    assert read_groups((torch.tensor([7, 7, 3]), [1, 2]), 3, 2).tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([1, 2], r"groups of the train samples have shape \(2,\); expected \(3,\)"),
        (([1, 2, 3], [4]), r"groups of the test samples have shape \(1,\); expected \(2,\)"),
        (([1, 2, 3], [4, 3]), "1 groups stand in both splits, 3 for one"),
    ],
)
def test_groups_that_can_not_be_used(groups, message):
    with pytest.raises(LinprobeError, match=message):
        read_groups(groups, 3, 2)
