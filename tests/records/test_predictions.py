"""Predictions: what is kept of logits, and the file they are kept in."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from linprobe.records.predictions import Predictions, load_predictions, save_predictions
from linprobe.runtime.errors import LinprobeError

LOGITS = torch.tensor([[0.0, 2.0, -1.0], [math.log(3), 0.0, -1.0], [-math.inf] * 3]).double()
LABELS = torch.tensor([1, 1, 2])


def test_predictions_by_hand():
    made = Predictions.of(LOGITS, LABELS)
    assert made.predicted.tolist() == [1, 0, 0]
    expected = [math.log(0.75), -math.log(1 + math.exp(2)), -math.inf]
    assert made.own_log_probability.tolist() == pytest.approx(expected)


def test_round_trip(tmp_path):
    layers = {
        "b.weight": Predictions.of(LOGITS, LABELS),
        "a": Predictions.of(LOGITS.flip(1), LABELS),
    }
    path = save_predictions(tmp_path, "trained", LABELS, layers)
    assert path == tmp_path / "predictions" / "trained.safetensors"
    labels, loaded = load_predictions(tmp_path, "trained")
    assert torch.equal(labels, LABELS)
    assert set(loaded) == set(layers)
    for layer, made in layers.items():
        assert torch.equal(loaded[layer].predicted, made.predicted)
        torch.testing.assert_close(loaded[layer].own_log_probability, made.own_log_probability)


@pytest.mark.parametrize(
    ("num_classes", "dtype"),
    [(256, torch.uint8), (300, torch.int16), (32_768, torch.int16), (40_001, torch.int32)],
)
def test_file_holds_small_types(tmp_path, num_classes, dtype):
    labels = torch.tensor([num_classes - 1, 0])
    made = Predictions(labels, torch.zeros(2))
    tensors = load_file(save_predictions(tmp_path, "x", labels, {"a": made}))
    assert tensors["a.predicted"].dtype == dtype
    assert tensors["a.own_log_probability"].dtype == torch.float32
    assert tensors["labels"].dtype == dtype
    found, layers = load_predictions(tmp_path, "x")
    assert found.tolist() == layers["a"].predicted.tolist() == [num_classes - 1, 0]


def test_files_of_earlier_versions_are_read(tmp_path):
    path = save_predictions(tmp_path, "x", LABELS, {"a": Predictions.of(LOGITS, LABELS)})
    save_file(load_file(path) | {"labels": LABELS.to(torch.int16)}, path)
    labels, layers = load_predictions(tmp_path, "x")
    assert labels.dtype == torch.int64 and torch.equal(labels, LABELS)
    assert layers["a"].predicted.tolist() == [1, 0, 0]


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(LinprobeError, match=r"x\.safetensors can't be read .*make the run again"):
        load_predictions(tmp_path, "x")
    save_predictions(tmp_path, "x", LABELS, {}).write_bytes(b"nothing")
    with pytest.raises(LinprobeError, match=r"x\.safetensors is damaged"):
        load_predictions(tmp_path, "x")
    save_file({"a/predicted": LABELS}, tmp_path / "predictions" / "x.safetensors")
    with pytest.raises(LinprobeError, match=r"x\.safetensors lacks 'labels'; make the run again"):
        load_predictions(tmp_path, "x")
