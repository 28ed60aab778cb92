"""Settings, samples and generators that experiments share."""

from dataclasses import replace

import pytest
import torch

from linprobe.evaluation.controls import ControlConfig
from linprobe.experiments import settings as common
from linprobe.experiments.settings import Settings, load_samples
from linprobe.pipeline.minibatch import SGDProtocol
from linprobe.probes.holdout import num_held_out
from linprobe.records.config import ExperimentRecord, MethodRecord
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.randomness import generator
from tests.support.tiny import tiny_dataset

SGD = SGDProtocol("adam", 1e-3, max_epochs=40)


@pytest.fixture
def data(monkeypatch):
    data = tiny_dataset()
    calls = []
    monkeypatch.setattr(common, "load", lambda *arguments: calls.append(arguments) or data)
    data.__dict__["calls"] = calls
    return data


def test_samples_are_reordered_but_stay_pairs(data, tmp_path):
    samples = load_samples(Settings(tmp_path, dataset="tiny", data_dir="there"))
    assert data.calls == [("tiny", "there")]
    assert not torch.equal(samples.train_labels, data.train_labels)
    assert torch.equal(samples.dataset.train_labels, data.train_labels)
    originals = {image.numpy().tobytes(): int(y) for image, y in pairs(data)}
    assert len(originals) == 120
    for image, label in zip(samples.train_images, samples.train_labels, strict=True):
        assert originals.pop(image.numpy().tobytes()) == label


def pairs(data):
    return zip(data.train_images, data.train_labels, strict=True)


def test_held_out_rows_are_stratified_and_depend_on_the_seed(data, tmp_path):
    first, again, other = (load_samples(Settings(tmp_path, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first.train_images, again.train_images)
    assert not torch.equal(first.train_images, other.train_images)
    held_out = first.train_labels[-num_held_out(120, 1 / 6) :]
    assert torch.bincount(held_out).tolist() == [2] * 10


def test_quick_runs_take_fewer_samples(data, tmp_path, monkeypatch):
    monkeypatch.setattr(common, "QUICK_TRAIN", 60)
    monkeypatch.setattr(common, "QUICK_TEST", 20)
    entry = load_samples(Settings(tmp_path, quick=True)).dataset_record()
    assert (entry.num_train, entry.num_test) == (60, 20)
    entry = load_samples(Settings(tmp_path)).dataset_record()
    assert (entry.num_train, entry.num_test) == (120, 50)


def test_dataset_entry_names_the_majority_class_of_the_training_split(data, tmp_path):
    data.train_labels[:5] = 3
    data.test_labels[data.test_labels == 3] = 4
    entry = load_samples(Settings(tmp_path)).dataset_record()
    share = float((data.train_labels == 3).double().mean())
    majority = entry.majority_error_rate
    assert (majority.train, majority.test) == pytest.approx((1 - share, 1.0))
    assert entry.sha256 == {"file": "00ff"}


def test_generators_differ_by_seed_and_purpose_and_touch_nothing():
    before = torch.get_rng_state()
    draws = {
        (seed, purpose): torch.rand(4, generator=generator(seed, purpose)).tolist()
        for seed in (0, 1)
        for purpose in ("network", "training")
    }
    assert len({tuple(draw) for draw in draws.values()}) == 4
    again = torch.rand(4, generator=generator(0, "network")).tolist()
    assert again == draws[0, "network"]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed is -1; expected a whole number from 0 on"),
        ({"device": "tpu"}, "device is 'tpu'; expected cpu or cuda"),
        ({"device": "cuda"}, "sees no CUDA device; use --device cpu"),
        ({"sgd": SGD, "mdl": True}, "protocol sgd has no controls, no mdl and no float64"),
        ({"sgd": SGD, "float64": True}, "protocol sgd has no controls, no mdl and no float64"),
        ({"sgd": SGD, "controls": ControlConfig(("input",))}, "protocol sgd has no controls"),
    ],
)
def test_bad_settings_are_refused(tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LinprobeError, match=message):
        Settings(tmp_path, **change)


def test_record_states_the_protocol_that_is_used(tmp_path):
    certified = Settings(tmp_path)
    assert certified.protocol == "certified"
    assert certified.run_config(ExperimentRecord()).minibatch is None
    trained = Settings(tmp_path, sgd=SGD)
    assert trained.protocol == "sgd"
    content = trained.run_config(ExperimentRecord())
    assert content.method == MethodRecord(1e-4, 1 / 6)
    assert content.minibatch.max_epochs == 40
    assert content.minibatch.certificate_l2 == 1e-6
    quick = Settings(tmp_path, sgd=SGD, quick=True)
    assert quick.run_config(ExperimentRecord()).minibatch.max_epochs == common.QUICK_PROBE_EPOCHS
    shorter = Settings(tmp_path, sgd=replace(SGD, max_epochs=2), quick=True)
    assert shorter.probe_training.max_epochs == 2
