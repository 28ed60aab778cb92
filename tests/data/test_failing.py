"""Data whose own code fails, or gives something else at each pass."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

import linprobe
from linprobe import LinprobeError, ProbeConfig
from linprobe.data.inputs import Source
from linprobe.data.splits import Split

X = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
Y = torch.arange(24) % 2


class Broken(Dataset):
    def __init__(self, at=10):
        self.at = at

    def __len__(self):
        return 24

    def __getitem__(self, place):
        if place == self.at:
            raise KeyError("no such file")
        return X[place], int(Y[place])


class Ragged(Broken):
    def __getitem__(self, place):
        return X[place, : 3 - place // 12], int(Y[place])


class NoLength(Dataset):
    def __getitem__(self, place):
        return X[place], int(Y[place])


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(X[:9], Y[:9], strict=True)
        raise OSError("connection lost")


class Moving(IterableDataset):
    """The same labels and other features at each pass."""

    passes = 0

    def __iter__(self):
        self.passes += 1
        return zip(X + self.passes, Y, strict=True)


class Crops(Broken):
    """Draws from PyTorch's global generator, as transforms of torchvision do."""

    def __getitem__(self, place):
        return X[place] + torch.rand(3), int(Y[place])


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: DataLoader(data, 5)])
def test_the_sample_that_fails_is_named_and_its_own_error_is_the_cause(wrap):
    with pytest.raises(
        LinprobeError, match=r"^sample 10 of the test data fails: KeyError"
    ) as raised:
        Split.read(Source(wrap(Broken()), "test", 4), None)
    assert isinstance(raised.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            DataLoader(Ragged(), 8),
            "samples 8 to 15 of the train data can't be put into one batch: RuntimeError",
        ),
        (NoLength(), "train data is a NoLength without __len__; expected one that says how many"),
        (Stream(), "the train data fails after 8 samples: OSError: connection lost"),
        (DataLoader(Stream(), 3), "the train data fails after 9 samples: OSError"),
    ],
)
def test_other_failures_are_said_in_one_line(data, message):
    with pytest.raises(LinprobeError, match=message) as raised:
        Split.read(Source(data, "train", 4), None)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: DataLoader(data, 5)])
def test_data_that_gives_other_features_at_each_pass_is_refused(wrap):
    network, method = nn.Sequential(nn.Linear(3, 3)), ProbeConfig((1e-2,))
    data = wrap(Moving())
    with pytest.raises(
        LinprobeError, match="the train data gives other inputs than the first time"
    ):
        linprobe.probe(network, data, (X, Y), method=method)


def test_random_crops_are_the_same_at_each_pass():
    network, method = nn.Sequential(nn.Linear(3, 3)), ProbeConfig((1e-2,))
    first, second = (
        linprobe.probe(network, Crops(), DataLoader(Crops(), 5, shuffle=True), method=method)
        for _ in range(2)
    )
    assert torch.equal(first["0"].weight, second["0"].weight)
