"""The Figure 8 run from end to end, on a data set that takes no time."""

import pytest
import torch
from safetensors.torch import load_file

from linprobe.experiments import figure8
from linprobe.experiments import samples as loading
from linprobe.experiments.figure8 import Figure8
from linprobe.experiments.mlp_training import MLPTraining
from linprobe.experiments.session import run
from linprobe.experiments.settings import QUICK_PROBE_EPOCHS, Settings
from linprobe.probes.config import ProbeConfig
from linprobe.records.store import load_run
from linprobe.report import plots
from linprobe.runtime.errors import LinprobeError
from tests.support.tiny import tiny_dataset

METHOD = ProbeConfig(l2_path=(1e-1, 1e-2))


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(loading, "load", lambda *_: tiny_dataset())


@pytest.fixture
def short(tiny, monkeypatch):
    """Runs of a second: two steps of training, and figures are left to another test."""
    monkeypatch.setattr(figure8, "QUICK_STEPS", (0, 1, 2))
    monkeypatch.setattr(plots, "save_figure", lambda figure, stem: ())


def settings(folder, **changes):
    return Settings(folder, **({"quick": True, "method": METHOD} | changes))


def test_run_and_files(tiny, tmp_path):
    record = run(Figure8(depth=4), settings(tmp_path))
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
        run(Figure8(depth=2), settings(folder, seed=seed))
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
    run(Figure8(depth=2), settings(tmp_path))
    assert torch.equal(torch.get_rng_state(), before)


def test_steps_are_those_of_the_paper():
    assert figure8.DEPTH == 128
    assert figure8.STEPS == (0, 500, 2000)


def test_odd_depth_is_refused_before_anything_is_touched(tmp_path):
    with pytest.raises(LinprobeError, match="depth is 5; expected an even number"):
        run(Figure8(depth=5), settings(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_existing_run_is_refused_or_replaced(short, tmp_path):
    (tmp_path / "results.json").write_text("an old run")
    with pytest.raises(LinprobeError, match="already holds a run"):
        run(Figure8(depth=2), settings(tmp_path))
    assert (tmp_path / "results.json").read_text() == "an old run"
    assert run(Figure8(depth=2), settings(tmp_path, overwrite=True)) == load_run(tmp_path)


def test_probes_can_be_trained_as_is_usual(short, tmp_path):
    experiment = Figure8(depth=2)
    record = run(experiment, Settings(tmp_path, quick=True, sgd=experiment.sgd_protocol()))
    assert load_run(tmp_path) == record
    assert (record.protocol, record.complete) == ("sgd", True)
    assert record.config.minibatch.max_epochs == QUICK_PROBE_EPOCHS
    inputs = [checkpoint.probes[0] for checkpoint in record.checkpoints]
    assert len({probe.objective for probe in inputs}) == 1
    assert not any(probe.standing == "failed" for c in record.checkpoints for probe in c.probes)


def test_usual_training_of_probes():
    usual = Figure8().sgd_protocol()
    assert (usual.optimizer, usual.learning_rate, usual.batch_size) == ("adam", 1e-3, 512)
    assert (usual.max_epochs, usual.patience, usual.decay) == (200, 2, 1.0)
    assert Figure8().sgd_protocol(9).max_epochs == 9


def test_network_can_be_trained_otherwise(short, tmp_path):
    weights = []
    for optimizer in ("adam", "sgd", "rmsprop"):
        folder = tmp_path / optimizer
        experiment = Figure8(2, optimizer, 0.01, batch_size=16, slope=0.3, skip="layer1_added")
        record = run(experiment, settings(folder))
        assert record.config.experiment.training.optimizer == optimizer
        assert record.config.experiment.training.batch_size == 16
        assert record.config.experiment.negative_slope == 0.3
        assert record.config.experiment.skip_from == "layer1_added"
        weights.append(load_file(folder / "networks" / "step2.safetensors")["logits.weight"])
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 3}, "depth is 3; expected an even number of layers, 2 or more"),
        ({"depth": 0}, "depth is 0; expected an even number of layers, 2 or more"),
        ({"slope": 1.5}, "slope is 1.5; expected a number from 0 to 1"),
        ({"skip": "layer2"}, "unknown skip 'layer2'; expected one of: input, layer1, layer1_added"),
        ({"momentum": 0.5}, "momentum is for optimizer 'sgd'; 'adam' has none: leave it out"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(LinprobeError, match=message):
        Figure8(**change)


def test_the_network_is_trained_as_the_options_say():
    assert Figure8().training() == MLPTraining()
    assert Figure8(optimizer="sgd", learning_rate=0.01).training() == MLPTraining("sgd", 0.01)
    assert Figure8(optimizer="sgd", momentum=0.0).training().momentum == 0.0
