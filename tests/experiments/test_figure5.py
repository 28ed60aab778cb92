"""The Figure 5 run from end to end, on a data set that takes no time."""

import pytest
import torch
from safetensors.torch import load_file

from linprobe.experiments import figure5
from linprobe.experiments import samples as loading
from linprobe.experiments.figure5 import Figure5
from linprobe.experiments.networks import ConvNet
from linprobe.experiments.session import run
from linprobe.experiments.settings import Settings
from linprobe.experiments.training import network_error_rate
from linprobe.probes.config import ProbeConfig
from linprobe.records.store import load_run
from linprobe.report import plots
from linprobe.runtime.errors import LinprobeError
from tests.support.tiny import tiny_dataset

METHOD = ProbeConfig(l2_path=(1e-1, 1e-2))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fig5")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load", lambda *_: tiny_dataset(60, 30))
        record = run(Figure5(epochs=3), Settings(folder, quick=True, method=METHOD))
    return folder, record


def test_files(finished):
    folder, record = finished
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "results.json",
        "results.csv",
        "report.html",
        "figure5a.png",
        "figure5a.svg",
        "figure5b.png",
        "figure5b.svg",
        "probes/untrained.safetensors",
        "probes/trained.safetensors",
        "networks/untrained.safetensors",
        "networks/trained.safetensors",
        "predictions/untrained.safetensors",
        "predictions/trained.safetensors",
    }
    assert load_run(folder) == record


def test_record(finished):
    _, record = finished
    assert (record.experiment, record.complete, record.quick) == ("fig5", True, True)
    assert record.config.experiment.recipe == "paper"
    assert record.config.experiment.epochs == figure5.QUICK_EPOCHS
    assert [(c.name, c.step) for c in record.checkpoints] == [("untrained", 0), ("trained", 1)]
    for checkpoint in record.checkpoints:
        assert [probe.layer for probe in checkpoint.probes] == list(ConvNet.probe_points)
        assert all(probe.converged for probe in checkpoint.probes)


def test_input_probe_is_the_same_at_every_checkpoint(finished):
    folder, _ = finished
    first, second = (
        load_file(folder / "probes" / f"{name}.safetensors") for name in ("untrained", "trained")
    )
    assert torch.equal(first["input.weight"], second["input.weight"])
    assert not torch.equal(first["conv1_preact.weight"], second["conv1_preact.weight"])


def test_saved_network_has_the_recorded_error(finished):
    folder, record = finished
    data = tiny_dataset(60, 30)
    for checkpoint in record.checkpoints:
        network = ConvNet("paper", torch.Generator().manual_seed(1))
        network.load_state_dict(load_file(folder / "networks" / f"{checkpoint.name}.safetensors"))
        rate = network_error_rate(network, data.test_images, data.test_labels)
        assert rate == checkpoint.network_test_error_rate


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": "mine"}, "recipe is 'mine'; expected one of: paper, course"),
        ({"epochs": 0}, "epochs is 0; expected a whole number from 1 on"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(LinprobeError, match=message):
        Figure5(**change)


def test_probes_can_be_trained_as_is_usual(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "load", lambda *_: tiny_dataset(60, 30))
    monkeypatch.setattr(plots, "save_figure", lambda figure, stem: ())
    experiment = Figure5(recipe="course")
    settings = Settings(tmp_path, quick=True, sgd=experiment.sgd_protocol(epochs=2))
    record = run(experiment, settings)
    assert load_run(tmp_path) == record
    assert (record.protocol, record.complete) == ("sgd", True)
    assert record.config.minibatch.max_epochs == 2
    first, second = (list(c.probes) for c in record.checkpoints)
    assert [probe.layer for probe in first] == list(ConvNet.probe_points)
    assert {probe.status for probe in first + second} == {"epoch_limit"}
    assert {probe.num_passes for probe in first + second} == {2}
    # The input's probe does not depend on the network.
    assert first[0].objective == second[0].objective
    assert first[1].objective != second[1].objective


def test_usual_training_of_probes():
    course, paper = (Figure5(recipe).sgd_protocol() for recipe in ("course", "paper"))
    assert (course.optimizer, course.momentum, course.learning_rate) == ("sgd", 0.9, 0.01)
    assert (course.max_epochs, course.batch_size, course.patience) == (500, 512, None)
    assert (course.decay, course.decay_batches) == (0.95, 50_000)
    assert (paper.decay, paper.decay_batches) == (0.95, None)
    assert Figure5("paper").sgd_protocol(7).max_epochs == 7
