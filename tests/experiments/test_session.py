"""A run's files: written after each checkpoint, kept when a later one fails."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file

from linprobe.evaluation.controls import ControlConfig
from linprobe.experiments import session
from linprobe.experiments import settings as common
from linprobe.experiments.networks import DeepMLP
from linprobe.experiments.session import Session
from linprobe.experiments.settings import Settings, load_samples
from linprobe.pipeline.minibatch import SGDProtocol
from linprobe.probes.config import ProbeConfig
from linprobe.records.config import ControlsRecord, ExperimentRecord
from linprobe.records.predictions import load_predictions
from linprobe.records.store import load_run
from linprobe.runtime.randomness import generator
from tests.support.tiny import tiny_dataset

PROBE = ProbeConfig(l2_path=(1e-1, 1e-2))


@pytest.fixture
def opened(monkeypatch, tmp_path):
    monkeypatch.setattr(common, "load", lambda *_: tiny_dataset())
    settings = Settings(tmp_path, probe=PROBE, seed=4)
    network = DeepMLP(2, generator(4, "network"))
    events, drawn = [], []
    run = Session(
        "test",
        settings,
        ExperimentRecord(depth=2),
        load_samples(settings),
        network,
        (("untrained", 0), ("later", 40)),
        batch_cost=0.5,
        draw=lambda record, folder: drawn.append((record, folder)),
        on_event=events.append,
    )
    return run, network, events, drawn


def test_each_checkpoint_is_written_at_once(opened, tmp_path):
    run, network, _, drawn = opened
    run.probe()
    assert load_run(tmp_path) == run.record
    assert not run.record.complete
    state = load_file(tmp_path / "networks" / "untrained.safetensors")
    assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())
    probes = load_file(tmp_path / "probes" / "untrained.safetensors")
    assert probes["layer1.weight"].shape == (10, 128)
    assert probes["layer1.bias"].dtype == torch.float64
    assert drawn == [(run.record, tmp_path)]
    labels, layers = load_predictions(tmp_path, "untrained")
    checkpoint = run.record.checkpoints[0]
    assert set(layers) == {probe.layer for probe in checkpoint.probes}
    for probe in checkpoint.probes:
        wrong = layers[probe.layer].predicted != labels
        assert float(wrong.double().mean()) == probe.test_error_rate
        assert probe.evaluation.num_test == len(labels)
    pairs = [(step.from_layer, step.to_layer) for step in checkpoint.steps]
    assert pairs == list(pairwise(probe.layer for probe in checkpoint.probes))
    for step, (one, other) in zip(checkpoint.steps, pairwise(checkpoint.probes), strict=True):
        change = (step.num_fixed - step.num_broken) / len(labels)
        assert change == pytest.approx(one.test_error_rate - other.test_error_rate)
    with run.training(40):
        pass
    run.probe()
    assert run.record.complete
    assert load_run(tmp_path) == run.record
    assert [(c.name, c.step) for c in run.record.checkpoints] == [("untrained", 0), ("later", 40)]


def test_failure_later_keeps_what_was_found(opened, tmp_path, monkeypatch):
    run, *_ = opened
    run.probe()
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(session, "probe_layers", fail)
    with pytest.raises(MemoryError):
        run.probe()
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert [c.name for c in load_run(tmp_path).checkpoints] == ["untrained"]


def test_record_says_how_it_was_made(opened, tmp_path):
    run, *_ = opened
    run.probe()
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["seed"] == 4
    assert content["protocol"] == "certified"
    assert content["config"]["experiment"]["depth"] == 2
    assert content["config"]["method"]["l2_path"] == [0.1, 0.01]
    assert content["environment"]["threads"] == torch.get_num_threads()
    assert content["peak_rss_bytes"] > 10**7
    checkpoint = content["checkpoints"][0]
    assert checkpoint["stages"]["train"] == 0.0
    assert checkpoint["stages"]["solve"] > 0
    assert set(checkpoint["stages"]) == {"train", "extract", "solve", "evaluate"}
    assert 0.5 <= checkpoint["network_test_error_rate"] <= 1
    assert content["seconds"] >= sum(checkpoint["stages"].values()) * 0.9


def test_progress_rises_to_one_and_names_things(opened):
    run, _, events, _ = opened
    run.probe()
    with run.training(40) as on_batch:
        for done in (20, 40):
            on_batch(done, 40, 1.25)
    run.probe()
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert fractions[-1] == pytest.approx(1.0)
    texts = [f"{event.checkpoint} {event.stage} {event.text}" for event in events]
    assert any("later train minibatch 20 of 40, loss 1.250" in text for text in texts)
    assert any("untrained solve layer1 (2/4), path: l2 1e-01" in text for text in texts)
    finished = [event.text for event in events if event.milestone and event.stage == "solve"]
    assert len(finished) == 8
    assert "test error" in finished[0]
    assert "gap" in finished[0]


def test_epochs_of_trained_probes_are_shown(monkeypatch, tmp_path):
    monkeypatch.setattr(common, "load", lambda *_: tiny_dataset())
    sgd = SGDProtocol("adam", 1e-2, max_epochs=20, patience=1, batch_size=32)
    settings = Settings(tmp_path, probe=PROBE, sgd=sgd)
    events = []
    run = Session(
        *(
            "test",
            settings,
            ExperimentRecord(),
            load_samples(settings),
            DeepMLP(2, generator(4, "network")),
        ),
        (("untrained", 0),),
        batch_cost=0.5,
        draw=lambda *_: None,
        on_event=events.append,
    )
    run.probe()
    assert load_run(tmp_path) == run.record
    assert run.record.protocol == "sgd"
    assert run.record.config.minibatch.patience == 1
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    epochs = [event for event in events if event.text.startswith("epoch ")]
    assert {event.stage for event in epochs} == {"solve"}
    probes = run.record.checkpoints[0].probes
    assert len(epochs) == max(probe.num_passes for probe in probes)
    assert epochs[-1].text.endswith(" 0 of 4 probes go on")
    assert epochs[-1].milestone
    assert 0 < sum(event.milestone for event in epochs) <= 10
    finished = [event.text for event in events if "test error" in event.text]
    assert any("epochs" in text and text.endswith(", early_stop") for text in finished)
    assert not any("NOT converged" in text for text in finished)


def test_training_is_timed_for_its_checkpoint_only(opened):
    run, *_ = opened
    run.probe()
    with run.training(40):
        torch.ones(100, 100).sum()
    run.probe()
    trained = [checkpoint.stages["train"] for checkpoint in run.record.checkpoints]
    assert trained[0] == 0.0
    assert trained[1] > 0.0


def test_training_milestones_are_few(opened):
    run, _, events, _ = opened
    run.probe()
    events.clear()
    with run.training(2000) as on_batch:
        for done in range(20, 2001, 20):
            on_batch(done, 2000, 1.0)
    assert len(events) == 101
    assert sum(event.milestone for event in events) == 11


def test_unsolved_probes_are_called_out(opened, monkeypatch):
    run, _, events, _ = opened
    watcher = run._watcher("untrained")
    run.probe()
    watcher.finished(replace(run.record.checkpoints[0].probes[0], status="max_passes_reached"))
    assert events[-1].text.endswith("NOT converged (max_passes_reached)")


def test_controls_and_codes_are_written_down(monkeypatch, tmp_path):
    monkeypatch.setattr(common, "load", lambda *_: tiny_dataset())
    names = ("control_task", "untrained", "input", "majority")
    settings = Settings(
        tmp_path, probe=PROBE, seed=4, controls=ControlConfig(names, repeats=1), mdl=True
    )
    run = Session(
        *(
            "test",
            settings,
            ExperimentRecord(),
            load_samples(settings),
            DeepMLP(2, generator(4, "network")),
        ),
        (("untrained", 0), ("later", 40)),
        batch_cost=0.5,
        draw=lambda *_: None,
        on_event=lambda _: None,
    )
    run.probe()
    run.probe()
    first, later = load_run(tmp_path).checkpoints
    assert run.record.config.controls == ControlsRecord(tuple(names), 1, 4)
    assert run.record.config.mdl is True
    layers = [probe.layer for probe in first.probes]
    assert [(c.name, c.layer) for c in first.controls] == [
        *(("control_task", layer) for layer in layers),
        *(("input", None), ("majority", None)),
    ]
    untrained = [c for c in later.controls if c.name == "untrained"]
    assert [c.layer for c in untrained] == layers
    assert [c.test_error_rate for c in untrained] == [p.test_error_rate for p in first.probes]
    assert later.controls[-1].test_error_rate == 0.9
    for probe, control in zip(first.probes, first.controls, strict=False):
        gained = control.test_error_rate - probe.test_error_rate
        assert control.selectivity == pytest.approx(gained)
        assert probe.evaluation.mdl.bits > 0
    assert first.stages["controls"] > 0
