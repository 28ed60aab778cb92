"""Settings, samples and generators that experiments share."""

from dataclasses import replace

import pytest
import torch

from linprobe.evaluation.options import EvaluationOptions
from linprobe.experiments import samples as loading
from linprobe.experiments.samples import load_samples
from linprobe.experiments.session import Session
from linprobe.experiments.settings import QUICK_PROBE_EPOCHS, Settings
from linprobe.probes.holdout import num_held_out
from linprobe.probes.minibatch import SGDProtocol
from linprobe.records.config import MethodRecord
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.progress import ignore
from linprobe.runtime.randomness import generator
from tests.support.tiny import TinyExperiment, tiny_dataset

SGD = SGDProtocol("adam", 1e-3, max_epochs=40)


@pytest.fixture
def data(monkeypatch):
    data = tiny_dataset()
    calls = []
    monkeypatch.setattr(loading, "load", lambda *arguments: calls.append(arguments) or data)
    data.__dict__["calls"] = calls
    return data


def test_samples_are_reordered_but_stay_pairs(data, tmp_path):
    samples = load_samples(Settings(tmp_path, dataset="tiny", data_dir="there"))
    assert data.calls == [("tiny", "there")]
    assert not torch.equal(samples.targets.labels, data.train_labels)
    assert torch.equal(samples.dataset.train_labels, data.train_labels)
    originals = {image.numpy().tobytes(): int(y) for image, y in pairs(data)}
    assert len(originals) == 120
    for image, label in zip(samples.train_images, samples.targets.labels, strict=True):
        assert originals.pop(image.numpy().tobytes()) == label


def pairs(data):
    return zip(data.train_images, data.train_labels, strict=True)


def test_held_out_rows_are_stratified_and_depend_on_the_seed(data, tmp_path):
    first, again, other = (load_samples(Settings(tmp_path, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first.train_images, again.train_images)
    assert not torch.equal(first.train_images, other.train_images)
    held_out = first.targets.labels[-num_held_out(120, 1 / 6) :]
    assert torch.bincount(held_out).tolist() == [2] * 10


def test_quick_runs_take_fewer_samples(data, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "QUICK_TRAIN", 60)
    monkeypatch.setattr(loading, "QUICK_TEST", 20)
    entry = load_samples(Settings(tmp_path, quick=True)).record()
    assert (entry.num_train, entry.num_test) == (60, 20)
    entry = load_samples(Settings(tmp_path)).record()
    assert (entry.num_train, entry.num_test) == (120, 50)


def test_dataset_entry_names_the_majority_class_of_the_training_split(data, tmp_path):
    data.train_labels[:5] = 3
    data.test_labels[data.test_labels == 3] = 4
    entry = load_samples(Settings(tmp_path)).record()
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
        ({"device": "cuda"}, "sees no CUDA device; use device 'cpu'"),
        (
            {"sgd": SGD, "evaluation": EvaluationOptions(mdl=True)},
            "protocol sgd has no controls, no mdl and no float64",
        ),
        ({"sgd": SGD, "float64": True}, "protocol sgd has no controls, no mdl and no float64"),
        ({"sgd": SGD, "evaluation": EvaluationOptions("input")}, "protocol sgd has no controls"),
        (
            {"evaluation": EvaluationOptions(types=(1, 2))},
            "evaluation.types is for samples of your",
        ),
    ],
)
def test_bad_settings_are_refused(tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LinprobeError, match=message):
        Settings(tmp_path, **change)


def config_of(settings):
    """What the record of a run with these settings says of them."""
    experiment = TinyExperiment()
    network = experiment.network(generator(0, "network"), quick=settings.quick)
    return Session(experiment, settings, load_samples(settings), network, ignore).record.config


def test_record_states_the_protocol_that_is_used(data, tmp_path):
    certified = Settings(tmp_path)
    assert certified.protocol == "certified"
    assert config_of(certified).minibatch is None
    trained = Settings(tmp_path, sgd=SGD)
    assert trained.protocol == "sgd"
    content = config_of(trained)
    assert content.method == MethodRecord(1e-4, 1 / 6)
    assert content.minibatch.max_epochs == 40
    assert content.minibatch.certificate_l2 == 1e-6
    quick = Settings(tmp_path, sgd=SGD, quick=True)
    assert config_of(quick).minibatch.max_epochs == QUICK_PROBE_EPOCHS
    shorter = Settings(tmp_path, sgd=replace(SGD, max_epochs=2), quick=True)
    assert shorter.probe_training.max_epochs == 2
