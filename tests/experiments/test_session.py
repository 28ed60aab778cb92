"""A run's files and its probes: written after each checkpoint, kept when a later one fails."""

import json
from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file

from linprobe.activations.extract import extract_features
from linprobe.evaluation.options import EvaluationOptions
from linprobe.experiments import samples as loading
from linprobe.experiments import session
from linprobe.experiments.networks import ConvNet, DeepMLP
from linprobe.experiments.samples import load_samples
from linprobe.experiments.session import Session
from linprobe.experiments.settings import Settings
from linprobe.pipeline import engine
from linprobe.pipeline.meter import Meter
from linprobe.probes.config import ProbeConfig
from linprobe.probes.minibatch import SGDProtocol
from linprobe.records.config import ControlsRecord
from linprobe.records.predictions import load_predictions
from linprobe.records.store import load_run
from linprobe.report.terminal import summary_lines
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.progress import ignore
from linprobe.runtime.randomness import generator
from tests.support.tiny import TinyExperiment, tiny_dataset

METHOD = ProbeConfig(l2_path=(1e-1, 1e-2))


@pytest.fixture(autouse=True)
def data(monkeypatch):
    monkeypatch.setattr(loading, "load", lambda *_: tiny_dataset())


def open_session(settings, network, *, on_event=ignore, **changes):
    experiment = TinyExperiment(**changes)
    run = Session(experiment, settings, load_samples(settings), network, on_event)
    return run, experiment


@pytest.fixture
def opened(tmp_path):
    network, events = DeepMLP(2, generator(4, "network")), []
    settings = Settings(tmp_path, method=METHOD, seed=4)
    run, experiment = open_session(settings, network, on_event=events.append)
    return run, network, events, experiment.drawn


def test_each_checkpoint_is_written_at_once(opened, tmp_path):
    run, network, _, drawn = opened
    run.probe("untrained", 0)
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
    with run.training("later", 40):
        pass
    run.probe("later", 40)
    assert run.record.complete
    assert load_run(tmp_path) == run.record
    assert [(c.name, c.step) for c in run.record.checkpoints] == [("untrained", 0), ("later", 40)]


def test_failure_later_keeps_what_was_found(opened, tmp_path, monkeypatch):
    run, *_ = opened
    run.probe("untrained", 0)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(session, "probe_layers", fail)
    with pytest.raises(MemoryError):
        run.probe("later", 40)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert [c.name for c in load_run(tmp_path).checkpoints] == ["untrained"]


def test_record_says_how_it_was_made(opened, tmp_path):
    run, *_ = opened
    run.probe("untrained", 0)
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
    run.probe("untrained", 0)
    with run.training("later", 40) as on_batch:
        for done in (20, 40):
            on_batch(done, 40, 1.25)
    run.probe("later", 40)
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


def test_epochs_of_trained_probes_are_shown(tmp_path):
    sgd = SGDProtocol("adam", 1e-2, max_epochs=20, patience=1, batch_size=32)
    settings, events = Settings(tmp_path, method=METHOD, sgd=sgd), []
    network = DeepMLP(2, generator(4, "network"))
    run, _ = open_session(settings, network, on_event=events.append, steps=(0,))
    run.run()
    assert load_run(tmp_path) == run.record
    assert run.record.protocol == "sgd"
    assert run.record.config.minibatch.patience == 1
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    for record in run.record.checkpoints[0].probes:
        epochs = [e.text for e in events if e.text.startswith(record.layer) and "epoch " in e.text]
        assert len(epochs) == record.num_passes
        assert f"epoch {len(epochs)}: mean loss " in epochs[-1]
    finished = [event.text for event in events if "test error" in event.text]
    assert any("epochs" in text and text.endswith(", early_stop") for text in finished)
    assert not any("NOT converged" in text for text in finished)


def test_training_is_timed_for_its_checkpoint_only(tmp_path):
    settings = Settings(tmp_path, method=METHOD)
    run, experiment = open_session(settings, DeepMLP(2, generator(4, "network")))
    run.run()
    assert experiment.trained == [40]
    assert run.record.complete
    trained = [checkpoint.stages["train"] for checkpoint in run.record.checkpoints]
    assert trained[0] == 0.0
    assert trained[1] > 0.0


def test_training_milestones_are_few(opened):
    run, _, events, _ = opened
    run.probe("untrained", 0)
    events.clear()
    with run.training("later", 2000) as on_batch:
        for done in range(20, 2001, 20):
            on_batch(done, 2000, 1.0)
    assert len(events) == 101
    assert sum(event.milestone for event in events) == 11


def test_controls_and_codes_are_written_down(tmp_path):
    names = ("control_task", "untrained", "input", "majority")
    evaluation = EvaluationOptions(names, repeats=1, mdl=True)
    settings = Settings(tmp_path, method=METHOD, seed=4, evaluation=evaluation)
    run, _ = open_session(settings, DeepMLP(2, generator(4, "network")))
    run.run()
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


LAYERS_METHOD = ProbeConfig(l2_path=(1e-1, 1e-2, 1e-3))


class Log:
    """What the meters of a session were told."""

    def __init__(self, monkeypatch):
        self.groups, self.solves, self.records = [], [], []
        log = self

        class Layers(Meter):
            def extracting(self, layers, split):
                if split == "train":
                    log.groups.append(layers)
                return super().extracting(layers, split)

            def solving(self, layer):
                told = super().solving(layer)

                def on_solve(*event):
                    log.solves.append((layer, *event))
                    told(*event)

                return on_solve

            def finished(self, record):
                log.records.append(record)
                super().finished(record)

        monkeypatch.setattr(session, "Meter", Layers)


@pytest.fixture
def probed(tmp_path, monkeypatch):
    """Probes all layers of a small network: the network, the probes, and what was reported."""

    def probe(network=None, **changes):
        network, log = network or DeepMLP(4, generator(0, "network")), Log(monkeypatch)
        settings = Settings(tmp_path, **{"method": LAYERS_METHOD, **changes})
        run, _ = open_session(settings, network, depth=4)
        return network, run._probe_layers("untrained"), log

    return probe


def tensors(probed):
    return {
        f"{layer}.{name}": getattr(probe, name)
        for layer, probe in probed.probes.items()
        for name in ("weight", "bias")
    }


def error_rate(probe, features, labels):
    predicted = (features.double() @ probe.weight.T + probe.bias).argmax(1)
    return float((predicted != labels).double().mean())


def all_features(network, images):
    taps = list(network.probe_points.values())
    features = extract_features(network, network.preprocess(images), taps)
    return {layer: features[tap] for layer, tap in network.probe_points.items()}


def predicted_layers(probed):
    return [layer for layer, probe in probed.probes.items() if probe.predictions is not None]


def all_controls(probed):
    return [control for probe in probed.probes.values() for control in probe.controls]


def test_every_layer_has_a_record_in_order(probed):
    network, result, log = probed()
    layers = list(network.probe_points)
    assert [record.layer for record in result.records] == list(result.probes) == layers
    assert [record.index for record in result.records] == list(range(6))
    assert [record.num_features for record in result.records] == [784, 128, 128, 128, 128, 10]
    assert all(record.converged for record in result.records)
    assert all(record.duality_gap <= LAYERS_METHOD.tol for record in result.records)
    assert {record.dtype for record in result.records} == {"float32"}
    assert {record.reducer for record in result.records} == {None}
    assert sorted(log.records, key=lambda record: record.index) == list(result.records)
    assert log.groups == [tuple(layers)]
    assert {layer for layer, *_ in log.solves} == set(layers)
    assert result.stages["solve"] > 0
    assert result.stages["extract"] > 0
    assert result.stages["evaluate"] > 0
    assert all_controls(result) == []
    assert predicted_layers(result) == layers


def test_memory_budget_changes_groups_but_no_result(probed):
    _, whole, _ = probed()
    _, single, log = probed(feature_bytes=1.0)
    assert [len(group) for group in log.groups] == [1] * 6
    others = tensors(single)
    for name, value in tensors(whole).items():
        torch.testing.assert_close(value, others[name], rtol=1e-6, atol=1e-6)
    for one, other in zip(whole.records, single.records, strict=True):
        assert (one.layer, one.status, one.l2) == (other.layer, other.status, other.l2)
        # Matrix products may round by where in memory their operands lie.
        assert one.objective == pytest.approx(other.objective, rel=1e-9)
        assert one.test_error_rate == other.test_error_rate


def test_layers_side_by_side_are_what_they_are_alone(probed):
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(probed()[1])
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    alone, beside = results
    for one, other in zip(alone.records, beside.records, strict=True):
        assert (one.layer, one.status, one.l2) == (other.layer, other.status, other.l2)
        assert one.objective == pytest.approx(other.objective, rel=1e-6)
        assert one.test_error_rate == other.test_error_rate
    assert list(alone.probes) == list(beside.probes)
    assert predicted_layers(alone) == predicted_layers(beside)


def test_float64_activations_show_what_float32_rounds_away(probed, tmp_path):
    network = DeepMLP(4, generator(0, "network"))
    with torch.no_grad():
        # layer2 varies by 1e-9 around a mean of 1.
        network.layer2[0].weight.mul_(1e-9)
        network.layer2[0].bias.fill_(1.0)
    found = {float64: probed(network, float64=float64)[1] for float64 in (False, True)}
    results = {mode: {r.layer: r for r in result.records} for mode, result in found.items()}
    samples = load_samples(Settings(tmp_path, method=LAYERS_METHOD))
    majority = samples.record().majority_error_rate.train
    assert results[False]["layer2"].train_error_rate == pytest.approx(majority)
    assert results[True]["layer2"].train_error_rate < 0.5 * majority
    assert results[True]["layer2"].converged
    assert results[True]["layer2"].dtype == "float64"
    same = [results[mode]["layer1"].objective for mode in (False, True)]
    assert same[0] == pytest.approx(same[1], rel=1e-5)
    # The saved probe takes raw features, in float64.
    inputs = network.preprocess(samples.train_images).double()
    tap = network.probe_points["layer2"]
    raw = extract_features(deepcopy(network).double(), inputs, [tap])[tap]
    assert raw.dtype == torch.float64
    rate = error_rate(found[True].probes["layer2"], raw, samples.targets.labels)
    assert rate == pytest.approx(results[True]["layer2"].train_error_rate, abs=0.01)


def test_saved_tensors_give_the_recorded_error_from_raw_features(probed):
    network, result, _ = probed()
    data = tiny_dataset()
    features = all_features(network, data.test_images)
    for layer, probe in result.probes.items():
        rate = error_rate(probe, features[layer], data.test_labels)
        assert rate == pytest.approx(probe.record.test_error_rate)
        low, high = probe.record.test_error_ci95
        assert low <= rate <= high


def test_widths_of_the_convolutional_network(tmp_path):
    network = ConvNet("paper", generator(0, "network"))
    run, _ = open_session(Settings(tmp_path), network)
    widths = {point.layer: point.num_features for point in run._points}
    expected = [784, 25088, 25088, 6272, 12544, 12544, 3136, 512, 512, 10]
    assert list(widths.values()) == expected
    assert list(widths) == list(network.probe_points)
    assert list(widths)[:3] == ["input", "conv1_preact", "conv1_postact"]


def test_controls_and_codes_are_added_and_change_no_probe(probed):
    network, plain, _ = probed(seed=5)
    names = ("shuffled_labels", "random_features")
    _, result, log = probed(seed=5, evaluation=EvaluationOptions(names, repeats=2, mdl=True))
    layers = list(network.probe_points)
    controls = all_controls(result)
    assert [c.layer for c in controls] == [layer for layer in layers for _ in range(4)]
    assert {(c.name, c.repeat, c.seed) for c in controls} == {
        (name, repeat, 5 + repeat) for name in names for repeat in (0, 1)
    }
    for one, other in zip(plain.records, result.records, strict=True):
        assert one.evaluation.mdl is None
        assert sum(count for count, _ in other.evaluation.mdl.blocks) == 120
        assert (one.objective, one.test_error_rate) == (other.objective, other.test_error_rate)
    assert result.stages["controls"] > 0
    stages = {stage for _, stage, *_ in log.solves}
    assert {"path", "refit", "random_features 2 of 2"} <= stages


def test_inputs_are_flattened_only_where_a_control_needs_them(tmp_path):
    network = ConvNet("paper", generator(0, "network"))
    for name, needed in (("majority", False), ("control_task", True)):
        settings = Settings(tmp_path, evaluation=EvaluationOptions((name,)))
        inputs = open_session(settings, network)[0]._task.plan.controls.data.inputs
        assert (inputs is not None) is needed
    assert [x.shape for x in inputs] == [(120, 784), (50, 784)]


SGD = SGDProtocol("adam", 1e-2, max_epochs=8, patience=2, batch_size=32)


@pytest.fixture
def by_sgd(probed):
    return probed(sgd=SGD)


def test_trained_probes_are_recorded_like_certified_ones(by_sgd):
    network, result, _ = by_sgd
    layers = list(network.probe_points)
    assert [record.layer for record in result.records] == layers
    assert {record.status for record in result.records} <= {"early_stop", "epoch_limit"}
    for record in result.records:
        assert (record.l2, record.l2_at_edge) == (SGD.certificate_l2, False)
        assert 3 <= record.num_passes <= SGD.max_epochs
        assert record.duality_gap > LAYERS_METHOD.tol
        assert record.evaluation.optimum_error_interval is None
        assert 0 <= record.validation_error_rate <= 1
    assert predicted_layers(result) == layers
    assert result.stages["solve"] > 0


def test_saved_tensors_of_trained_probes_take_raw_features(by_sgd):
    network, result, _ = by_sgd
    data = tiny_dataset()
    features = all_features(network, data.test_images)
    for layer, probe in result.probes.items():
        assert error_rate(probe, features[layer], data.test_labels) == probe.record.test_error_rate


def test_memory_budget_does_not_change_trained_probes(probed, by_sgd):
    _, single, log = probed(sgd=SGD, feature_bytes=1.0)
    assert [len(group) for group in log.groups] == [1] * 6
    others = tensors(single)
    for name, value in tensors(by_sgd[1]).items():
        torch.testing.assert_close(value, others[name], rtol=1e-6, atol=1e-6)


def test_a_layer_that_fails_is_listed_and_the_others_are_kept(opened, tmp_path, monkeypatch):
    run, *_ = opened
    real, calls = engine.fit_layer, iter(range(10))

    def fit_layer(*args):
        if next(calls) == 1:
            raise MemoryError("no room")
        return real(*args)

    monkeypatch.setattr(engine, "fit_layer", fit_layer)
    run.probe("untrained", 0)
    record = load_run(tmp_path)
    standing = [probe.standing for probe in record.checkpoints[0].probes]
    assert standing.count("failed") == 1 and standing.count("certified") == len(standing) - 1
    (note,) = record.config.notes
    assert note.startswith("At untrained: Layer ") and note.endswith("MemoryError: no room.")
    assert note in "\n".join(summary_lines(record))


def test_strict_ends_the_run_at_the_first_layer_that_fails(tmp_path, monkeypatch):
    settings = Settings(tmp_path, method=METHOD, seed=4, strict=True)
    run, _ = open_session(settings, DeepMLP(2, generator(4, "network")))

    def fail(*_):
        raise LinprobeError("no room")

    monkeypatch.setattr(engine, "fit_layer", fail)
    with pytest.raises(LinprobeError, match="no room"):
        run.probe("untrained", 0)
