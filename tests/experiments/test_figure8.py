"""The Figure 8 run from end to end, on a data set that takes no time."""

import pytest
import torch
from linprobe.probes.protocol import ProbeConfig
from safetensors.torch import load_file

from linprobe.experiments import figure8
from linprobe.experiments import settings as common
from linprobe.experiments.figure8 import Figure8Config
from linprobe.experiments.settings import Settings
from linprobe.experiments.training import MLPTraining
from linprobe.records.store import load_run
from linprobe.runtime.errors import LinprobeError
from tests.support.tiny import tiny_dataset

PROBE = ProbeConfig(l2_path=(1e-1, 1e-2))


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(common, "load", lambda *_: tiny_dataset())


@pytest.fixture
def short(tiny, monkeypatch):
    """Runs of a second: two steps of training, and figures are left to another test."""
    monkeypatch.setattr(figure8, "QUICK_STEPS", (0, 1, 2))
    monkeypatch.setattr(figure8, "save_figure", lambda figure, stem: ())


def config(folder, **changes):
    settings = Settings(folder, quick=True, probe=PROBE, overwrite=True)
    return Figure8Config(settings, **({"depth": 4} | changes))


def test_run_and_files(tiny, tmp_path):
    record = figure8.run(config(tmp_path))
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    checkpoints = ["untrained", "step20", "step60"]
    figures = {f"figure8_{s}.{kind}" for s in ("test", "train") for kind in ("png", "svg")}
    kinds = ("probes", "networks", "predictions")
    tensors = {f"{kind}/{c}.safetensors" for kind in kinds for c in checkpoints}
    assert names == {"results.json", "results.csv", "report.html"} | figures | tensors
    assert load_run(tmp_path) == record
    assert [c.name for c in record.checkpoints] == checkpoints
    assert [c.step for c in record.checkpoints] == [0, 20, 60]
    assert record.complete
    assert record.config.experiment.depth == 4
    assert record.config.experiment.skip_layer == "layer3"
    assert record.config.experiment.training.optimizer == MLPTraining().optimizer
    for checkpoint in record.checkpoints:
        layers = [probe.layer for probe in checkpoint.probes]
        assert layers == ["input", "layer1", "layer2", "layer3", "layer4", "logits"]


def test_seed_decides_everything_and_only_the_seed(short, tmp_path):
    folders = [tmp_path / name for name in "abc"]
    for folder, seed in zip(folders, (1, 1, 2), strict=True):
        figure8.run(Figure8Config(Settings(folder, quick=True, probe=PROBE, seed=seed), depth=2))
        torch.rand(3)  # the global generator moves on, and has no say
    weights = [
        load_file(folder / kind / "step2.safetensors")
        for folder in folders
        for kind in ("networks", "probes")
    ]
    for first, again, other in zip(weights[:2], weights[2:4], weights[4:], strict=True):
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert not any(torch.equal(first[name], other[name]) for name in first if "bias" in name)


def test_global_random_state_is_left_alone(short, tmp_path):
    before = torch.get_rng_state()
    figure8.run(config(tmp_path, depth=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_steps_are_those_of_the_paper():
    assert figure8.DEPTH == 128
    assert figure8.STEPS == (0, 500, 2000)


def test_odd_depth_is_refused_before_anything_is_touched(tmp_path):
    with pytest.raises(LinprobeError, match="depth is 5; expected an even number"):
        figure8.run(config(tmp_path / "new", depth=5))
    assert not (tmp_path / "new").exists()


def test_existing_run_is_refused_or_replaced(short, tmp_path):
    (tmp_path / "results.json").write_text("an old run")
    with pytest.raises(LinprobeError, match="already holds a run"):
        figure8.run(Figure8Config(Settings(tmp_path, quick=True, probe=PROBE), depth=2))
    assert (tmp_path / "results.json").read_text() == "an old run"
    assert figure8.run(config(tmp_path, depth=2)) == load_run(tmp_path)


def test_probes_can_be_trained_as_is_usual(short, tmp_path):
    settings = Settings(tmp_path, quick=True, sgd=figure8.sgd_protocol())
    record = figure8.run(Figure8Config(settings, depth=2))
    assert load_run(tmp_path) == record
    assert (record.protocol, record.complete) == ("sgd", True)
    assert record.config.minibatch.max_epochs == common.QUICK_PROBE_EPOCHS
    inputs = [checkpoint.probes[0] for checkpoint in record.checkpoints]
    assert len({probe.objective for probe in inputs}) == 1
    assert not any(probe.standing == "failed" for c in record.checkpoints for probe in c.probes)


def test_usual_training_of_probes():
    usual = figure8.sgd_protocol()
    assert (usual.optimizer, usual.learning_rate, usual.batch_size) == ("adam", 1e-3, 512)
    assert (usual.max_epochs, usual.patience, usual.decay) == (200, 2, 1.0)
    assert figure8.sgd_protocol(9).max_epochs == 9


def test_network_can_be_trained_otherwise(short, tmp_path):
    weights = []
    for optimizer in ("adam", "sgd", "rmsprop"):
        folder = tmp_path / optimizer
        settings = Settings(folder, quick=True, probe=PROBE)
        training = MLPTraining(optimizer, 0.01, batch_size=16)
        record = figure8.run(Figure8Config(settings, 2, training, 0.3))
        assert record.config.experiment.training.optimizer == optimizer
        assert record.config.experiment.training.batch_size == 16
        assert record.config.experiment.negative_slope == 0.3
        weights.append(load_file(folder / "networks" / "step2.safetensors")["logits.weight"])
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
