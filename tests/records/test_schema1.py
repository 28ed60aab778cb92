"""Runs that were written by schema 1: they load, and say what they said."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from linprobe.records.config import (
    ControlsRecord,
    ExperimentRecord,
    ExtractionRecord,
    LoadingRecord,
    MethodRecord,
    MinibatchRecord,
    TrainingRecord,
)
from linprobe.records.schema import MajorityErrorRate
from linprobe.records.store import load_run, save
from linprobe.runtime.errors import LinprobeError

DATA = Path(__file__).parent / "data" / "schema1"
PATH = tuple(10.0**-power for power in range(1, 10))
MLP_TRAINING = TrainingRecord("adam", 1e-4, 512, 0.9, 1.0)


def load(name):
    return load_run(DATA / f"{name}.json")


def damaged(tmp_path, change, name="fig8"):
    content = json.loads((DATA / f"{name}.json").read_text())
    change(content)
    (tmp_path / "results.json").write_text(json.dumps(content))
    return load_run(tmp_path)


def test_figure8_with_controls():
    run = load("fig8")
    names = ("shuffled_labels", "control_task", "untrained", "random_features", "input", "majority")
    assert run.config.experiment == ExperimentRecord(
        "bars", depth=4, skip_layer="layer3", negative_slope=0.1, training=MLP_TRAINING
    )
    assert run.config.method.l2_path == pytest.approx(PATH)
    assert run.config.method.tol == 1e-4 and run.config.method.max_passes == 200
    assert run.config.controls == ControlsRecord(names, 1, 0)
    assert run.config.mdl
    assert run.config.extraction == ExtractionRecord(memory_bytes=8e9)
    assert run.config.minibatch is None and run.config.loading is None
    assert (run.config.device, run.environment.threads, run.environment.cpu) == (
        *("cpu", 2, "AMD EPYC"),
    )
    assert (run.dataset.name, run.dataset.num_train, run.dataset.num_test) == ("mnist", 1000, 1000)
    assert run.dataset.majority_error_rate == MajorityErrorRate(0.883, 0.901)
    assert len(run.dataset.sha256) == 4
    first = run.checkpoints[0]
    assert [probe.layer for probe in first.probes] == ["input", "layer1", "layer2"]
    assert first.probes[0].test_error_rate == 0.16 and first.probes[0].converged
    assert first.probes[0].dtype is None and first.probes[0].reason is None
    assert first.probes[0].evaluation.mdl.bits == pytest.approx(1051.147, abs=1e-3)
    assert {control.name for control in first.controls} == {*names} - {"untrained"}
    assert {control.name for control in run.checkpoints[1].controls} == set(names)


def test_probes_that_were_trained_by_minibatches():
    run = load("fig8-sgd")
    assert run.protocol == "sgd"
    assert run.config.method == MethodRecord(1e-4, 1 / 6)
    assert run.config.minibatch == MinibatchRecord(
        *("adam", 1e-3, 5, 2, 0.9, 1.0, None, 512), certificate_l2=1e-6
    )
    assert {probe.standing for probe in run.checkpoints[0].probes} == {"trained"}


def test_figure5():
    run = load("fig5")
    assert run.config.experiment == ExperimentRecord("curve", recipe="paper", epochs=1)
    assert not run.config.extraction.float64


def test_probes_of_an_own_network():
    run = load("probe")
    assert not run.is_experiment
    extraction = replace(run.config.extraction, memory_bytes=None)
    assert extraction == ExtractionRecord("Sequential", "auto", "mean", False, 256)
    assert run.config.extraction.memory_bytes == pytest.approx(9.6e9, rel=0.01)
    assert run.config.loading == LoadingRecord("small.py:net", {})
    assert run.config.experiment == ExperimentRecord("curve")
    assert len(run.config.notes) == 1 and run.config.notes[0].startswith("1 layers have at least")


@pytest.mark.parametrize("name", ["fig5", "fig8", "fig8-sgd", "probe"])
def test_saved_again_they_are_schema_2(name, tmp_path):
    run = load(name)
    save(run, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["schema"] == 2
    assert load_run(tmp_path) == run


def test_activations_in_float64(tmp_path):
    run = damaged(tmp_path, lambda content: content["config"].update(float64=True))
    assert run.config.extraction.float64


def test_the_device_was_not_always_written_down(tmp_path):
    def strip(content):
        del content["config"]["device"]
        content["environment"]["device"] = "cuda (NVIDIA H100)"

    assert damaged(tmp_path, strip).config.device == "cuda"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["checkpoints"][0]["probes"][1].update(l2="x"), r"probes\[1\]\.l2 is 'x'; exp"),
        (lambda c: c["config"].update(probe=3), r"config\.method is 3; expected an object"),
        (lambda c: c["config"].update(depth="x"), r"config\.experiment\.depth is 'x'; expected an"),
        (lambda c: c.update(config=None), r"config is None; expected an object"),
        (lambda c: c.pop("config"), r"config is missing"),
        (lambda c: c["environment"].pop("torch"), r"environment\.torch is missing"),
    ],
)
def test_damage_is_named(change, message, tmp_path):
    with pytest.raises(LinprobeError, match=message):
        damaged(tmp_path, change)


def test_the_area_under_the_curve_stands_among_the_metrics(tmp_path):
    content = json.loads((DATA / "probe.json").read_text())
    content["checkpoints"][0]["probes"][0]["evaluation"]["auroc"] = 0.75
    (tmp_path / "results.json").write_text(json.dumps(content))
    run = load_run(tmp_path)
    assert run.checkpoints[0].probes[0].metric("auroc") == 0.75
    assert "auroc" in [metric.name for metric in run.metrics]
