"""All layers of a small network: nothing lost, whatever the memory budget."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from linprobe.activations.features import extract_features
from linprobe.experiments.probing import (
    LayerWatcher,
    control_task,
    expected_cost,
    extras_of,
    layer_widths,
    probe_layers,
    training_cost,
)

from linprobe.evaluation.controls import ControlConfig
from linprobe.experiments import probing
from linprobe.experiments import settings as common
from linprobe.experiments.networks import ConvNet, DeepMLP
from linprobe.experiments.settings import Settings, load_samples
from linprobe.pipeline.minibatch import SGDProtocol
from linprobe.probes.config import ProbeConfig
from linprobe.runtime.randomness import generator
from tests.support.tiny import tiny_dataset

PROBE = ProbeConfig(l2_path=(1e-1, 1e-2, 1e-3))


@pytest.fixture
def samples(monkeypatch, tmp_path):
    monkeypatch.setattr(common, "load", lambda *_: tiny_dataset())
    return load_samples(Settings(tmp_path))


class Log:
    def __init__(self):
        self.groups, self.solves, self.records, self.epochs = [], [], [], []
        receivers = (self.groups.append, self.solving, self.records.append, self.epochs.append)
        self.watcher = LayerWatcher(*receivers)

    def solving(self, layer):
        return lambda *event: self.solves.append((layer, *event))


def probed(samples, tmp_path, **changes):
    network = DeepMLP(4, generator(0, "network"))
    log = Log()
    settings = Settings(tmp_path, probe=PROBE, **changes)
    return network, probe_layers(network, samples, settings, log.watcher), log


def test_every_layer_has_a_record_in_order(samples, tmp_path):
    network, result, log = probed(samples, tmp_path)
    layers = list(network.probe_points)
    assert [record.layer for record in result.records] == layers
    assert [record.index for record in result.records] == list(range(6))
    assert [record.num_features for record in result.records] == [784, 128, 128, 128, 128, 10]
    assert all(record.converged for record in result.records)
    assert all(record.duality_gap <= PROBE.tol for record in result.records)
    assert sorted(log.records, key=lambda record: record.index) == list(result.records)
    assert log.groups == [tuple(layers)]
    assert {layer for layer, *_ in log.solves} == set(layers)
    # Layers side by side: the clock shows less than their seconds together.
    assert 0 < result.stages["solve"] <= 1.01 * sum(r.seconds for r in result.records)
    assert result.stages["extract"] > 0
    assert result.stages["evaluate"] > 0
    assert result.controls == ()
    assert set(result.predictions) == set(layers)


def test_memory_budget_changes_groups_but_no_result(samples, tmp_path):
    _, whole, _ = probed(samples, tmp_path)
    _, single, log = probed(samples, tmp_path, feature_bytes=1.0)
    assert [len(group) for group in log.groups] == [1] * 6
    for name, value in whole.tensors.items():
        torch.testing.assert_close(value, single.tensors[name], rtol=1e-6, atol=1e-6)
    for one, other in zip(whole.records, single.records, strict=True):
        assert (one.layer, one.status, one.l2) == (other.layer, other.status, other.l2)
        # Matrix products may round by where in memory their operands lie.
        assert one.objective == pytest.approx(other.objective, rel=1e-9)
        assert one.test_error_rate == other.test_error_rate


def test_layers_side_by_side_are_what_they_are_alone(samples, tmp_path):
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(probed(samples, tmp_path)[1])
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    alone, beside = results
    for one, other in zip(alone.records, beside.records, strict=True):
        assert (one.layer, one.status, one.l2) == (other.layer, other.status, other.l2)
        assert one.objective == pytest.approx(other.objective, rel=1e-9)
        assert one.test_error_rate == other.test_error_rate
    assert list(alone.tensors) == list(beside.tensors)
    assert list(alone.predictions) == list(beside.predictions)


def test_float64_activations_show_what_float32_rounds_away(samples, tmp_path):
    network = DeepMLP(4, generator(0, "network"))
    with torch.no_grad():
        # layer2 varies by 1e-9 around a mean of 1.
        network.layer2[0].weight.mul_(1e-9)
        network.layer2[0].bias.fill_(1.0)
    results = {}
    for float64 in (False, True):
        settings = Settings(tmp_path, probe=PROBE, float64=float64)
        result = probe_layers(network, samples, settings, Log().watcher)
        results[float64] = {record.layer: record for record in result.records}
    majority = samples.dataset_record().majority_error_rate.train
    assert results[False]["layer2"].train_error_rate == pytest.approx(majority)
    assert results[True]["layer2"].train_error_rate < 0.5 * majority
    assert results[True]["layer2"].converged
    same = [results[mode]["layer1"].objective for mode in (False, True)]
    assert same[0] == pytest.approx(same[1], rel=1e-5)
    # The saved probe takes raw features, in float64.
    inputs = network.preprocess(samples.train_images).double()
    tap = network.probe_points["layer2"]
    raw = extract_features(deepcopy(network).double(), inputs, [tap], dtype=torch.float64)[tap]
    logits = raw @ result.tensors["layer2.weight"].T + result.tensors["layer2.bias"]
    rate = float((logits.argmax(1) != samples.train_labels).double().mean())
    assert rate == pytest.approx(results[True]["layer2"].train_error_rate, abs=0.01)


def test_saved_tensors_give_the_recorded_error_from_raw_features(samples, tmp_path):
    network, result, _ = probed(samples, tmp_path)
    data = samples.dataset
    inputs = network.preprocess(data.test_images)
    features = extract_features(network, inputs, list(network.probe_points.values()))
    for record in result.records:
        raw = features[network.probe_points[record.layer]].double()
        logits = raw @ result.tensors[f"{record.layer}.weight"].T
        logits += result.tensors[f"{record.layer}.bias"]
        rate = float((logits.argmax(1) != data.test_labels).double().mean())
        assert rate == pytest.approx(record.test_error_rate)
        low, high = record.test_error_ci95
        assert low <= rate <= high


def test_widths_and_costs_of_the_convolutional_network(samples):
    widths = layer_widths(ConvNet("paper", generator(0, "network")), samples, "cpu")
    expected = [784, 25088, 25088, 6272, 12544, 12544, 3136, 512, 512, 10]
    assert list(widths.values()) == expected
    assert list(widths)[:3] == ["input", "conv1_preact", "conv1_postact"]
    costs = expected_cost(widths, 60_000)
    assert costs["conv1_preact"] > costs["conv1_postpool"] > costs["logits"] > 0
    assert costs["input"] > expected_cost(widths, 1_000)["input"]


def test_extras_are_added_and_change_no_probe(samples, tmp_path):
    network, plain, _ = probed(samples, tmp_path)
    settings = Settings(
        *(tmp_path, "mnist", None, 5),
        probe=PROBE,
        controls=ControlConfig(("shuffled_labels", "random_features"), repeats=2),
        mdl=True,
    )
    task = control_task(network, samples, settings)
    extras = extras_of(task, settings)
    assert extras.controls.config.seed == 5
    log = Log()
    result = probe_layers(network, samples, replace(settings, seed=0), log.watcher, extras)
    layers = list(network.probe_points)
    assert [c.layer for c in result.controls] == [layer for layer in layers for _ in range(4)]
    assert {(c.name, c.repeat, c.seed) for c in result.controls} == {
        (name, repeat, 5 + repeat)
        for name in ("shuffled_labels", "random_features")
        for repeat in (0, 1)
    }
    for one, other in zip(plain.records, result.records, strict=True):
        assert one.evaluation.mdl is None
        assert sum(count for count, _ in other.evaluation.mdl.blocks) == len(samples.train_labels)
        assert (one.objective, one.test_error_rate) == (other.objective, other.test_error_rate)
    assert result.stages["controls"] > 0
    stages = {stage for _, stage, *_ in log.solves}
    assert {"path", "refit", "random_features 2 of 2"} <= stages


def test_inputs_are_flattened_only_where_a_control_needs_them(samples, tmp_path):
    network = ConvNet("paper", generator(0, "network"))
    for names, needed in ((("majority",), False), (("control_task",), True)):
        settings = Settings(tmp_path, controls=ControlConfig(names))
        task = control_task(network, samples, settings)
        assert (task.inputs is not None) is needed
    assert [x.shape for x in task.inputs] == [(120, 784), (50, 784)]


SGD = SGDProtocol("adam", 1e-2, max_epochs=8, patience=2, batch_size=32)


@pytest.fixture
def by_sgd(samples, tmp_path):
    return probed(samples, tmp_path, sgd=SGD)


def test_trained_probes_are_recorded_like_certified_ones(samples, by_sgd):
    network, result, log = by_sgd
    layers = list(network.probe_points)
    assert [record.layer for record in result.records] == layers
    assert {record.status for record in result.records} <= {"early_stop", "epoch_limit"}
    for record in result.records:
        assert (record.l2, record.l2_at_edge) == (SGD.certificate_l2, False)
        assert 3 <= record.num_passes <= SGD.max_epochs
        assert record.duality_gap > PROBE.tol
        assert record.evaluation.optimum_error_interval is None
        assert 0 <= record.validation_error_rate <= 1
    assert set(result.predictions) == set(layers)
    assert log.epochs[-1].share == 1.0
    assert len(log.epochs) == max(record.num_passes for record in result.records)
    assert result.stages["solve"] > 0  # the training, which all layers share, is part of it


def test_saved_tensors_of_trained_probes_take_raw_features(samples, by_sgd):
    network, result, _ = by_sgd
    inputs = network.preprocess(samples.dataset.test_images)
    features = extract_features(network, inputs, list(network.probe_points.values()))
    for record in result.records:
        weight = result.tensors[f"{record.layer}.weight"]
        x = features[network.probe_points[record.layer]].double()
        predicted = (x @ weight.T + result.tensors[f"{record.layer}.bias"]).argmax(1)
        wrong = predicted != samples.dataset.test_labels
        assert float(wrong.double().mean()) == record.test_error_rate


def test_memory_budget_does_not_change_trained_probes(samples, tmp_path, by_sgd):
    _, single, log = probed(samples, tmp_path, sgd=SGD, feature_bytes=1.0)
    assert [len(group) for group in log.groups] == [1] * 6
    for name, value in by_sgd[1].tensors.items():
        torch.testing.assert_close(value, single.tensors[name], rtol=1e-6, atol=1e-6)


def test_held_out_rows_are_those_of_the_certified_protocol(samples, tmp_path, monkeypatch):
    rows = []
    train = probing.train_probes
    monkeypatch.setattr(
        probing, "train_probes", lambda *a, **k: rows.append(k["num_fit"]) or train(*a, **k)
    )
    probed(samples, tmp_path, sgd=SGD)
    assert rows == [100]


def test_training_costs_grow_with_width_epochs_and_samples():
    widths = {"a": 100, "b": 1000}
    cost = training_cost(widths, 60_000, SGD)
    assert training_cost(widths, 30_000, SGD) == pytest.approx(cost / 2)
    assert training_cost(widths, 60_000, replace(SGD, max_epochs=16)) == pytest.approx(2 * cost)
    assert training_cost({"a": 100, "b": 2000}, 60_000, SGD) > cost
