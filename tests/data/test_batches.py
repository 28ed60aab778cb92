"""A batch is taken apart, cut and cast without losing what belongs together."""

import numpy as np
import pytest
import torch

from linprobe import LinprobeError
from linprobe.data.batches import Batch

X = torch.arange(22.0).view(11, 2)
Y = torch.arange(11) % 3


def test_head_and_cast():
    batch = Batch.read({"x": X, "attention_mask": torch.ones(11, 2), "labels": Y}, "train")
    head = batch.head(3)
    assert len(head) == 3 and head.kwargs["x"].shape == (3, 2) and head.mask.shape == (3, 2)
    half = batch.to(torch.device("cpu"), torch.float16)
    assert half.kwargs["x"].dtype is torch.float16 and half.raw["x"].dtype is torch.float32
    words = Batch.read((torch.arange(11), Y), "train").to(torch.device("cpu"), torch.float16)
    assert words.args[0].dtype is torch.int64
    # What is not all tensors can't be cut: it is kept whole.
    assert len(Batch.read({"x": X, "note": "hello", "labels": Y}, "train").head(3)) == 11


@pytest.mark.parametrize("part", [0, 1])
def test_masked_arrays_are_refused(part):
    batch = [np.ones(4), np.arange(4)]
    batch[part] = np.ma.masked_equal(batch[part], 1)
    with pytest.raises(LinprobeError, match="a masked array has values that are missing"):
        Batch.read(tuple(batch), "train")
