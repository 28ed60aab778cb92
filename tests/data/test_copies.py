"""Test samples that are training samples are counted; chance is not cried over."""

import numpy as np
import pytest
import torch

from linprobe.data.batches import Batch
from linprobe.data.copies import copies_note, feature_hashes, input_hashes, repeats

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(200, 5)).astype(np.float32)


def noted(train, test):
    note = "".join(copies_note(feature_hashes(train), feature_hashes(test), "inputs"))
    return int(note.split()[0]) if note else 0


@pytest.mark.parametrize(
    "kind", [np.asarray, torch.from_numpy, lambda x: x.astype(">f4"), lambda x: x[:, ::-1]]
)
def test_copies_are_counted_in_any_container(kind):
    test = np.concatenate([DRAW.normal(size=(50, 5)).astype(np.float32), X[10:13], X[:1]])
    assert noted(kind(X), kind(test)) == 4
    assert noted(kind(X), kind(test[:50])) == 0


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]
)
def test_rows_of_every_dtype(dtype):
    rows = torch.from_numpy(DRAW.integers(0, 2, size=(100, 64))).to(dtype)
    assert noted(rows[:60], rows[60:]) == 0 and noted(rows[:60], rows[40:]) == 20


def test_rows_of_few_values_coincide_by_chance():
    few = DRAW.integers(0, 2, size=(400, 6))
    assert repeats(feature_hashes(few[:200])) > 0.9
    assert noted(few[:200], few[200:]) == 0
    assert noted(np.zeros((50, 3)), np.zeros((50, 3))) == 0
    assert noted(few[:200], few[:200]) == 200, "the whole of it, in order"


def test_more_copies_than_chance_gives():
    """One row in five repeats another one of its split; half of the test rows are copied."""
    train = np.concatenate([X[:100], X[:10]])
    test = np.concatenate([DRAW.normal(size=(50, 5)), X[20:70]]).astype(np.float32)
    assert 0.05 < repeats(feature_hashes(train)) < 0.3
    assert noted(train, test) == 50


def test_all_inputs_of_a_sample_count():
    one = {"a": torch.arange(4), "b": {"c": torch.zeros(4, 2, 3)}, "labels": torch.arange(4)}
    other = {**one, "b": {"c": torch.eye(4)[:, :, None]}}
    first, second = (input_hashes(Batch.read(raw, "train")) for raw in (one, other))
    assert len(set(first.tolist())) == 4 and not set(first) & set(second)
    assert input_hashes(Batch.read({"text": ["a", "b"], "labels": [0, 1]}, "train")).tolist() == [
        0,
        0,
    ]
