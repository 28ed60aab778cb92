"""Controls: what is drawn, what its probe finds, and what is written down of it."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import chisquare
from threadpoolctl import threadpool_limits

from linprobe.core.features import DenseFeatures
from linprobe.evaluation.controls import ControlData, Controls, input_types, of_records
from linprobe.evaluation.options import EvaluationOptions
from linprobe.probes.base import Targets
from linprobe.probes.config import ProbeConfig
from linprobe.probes.holdout import holdout_order, num_held_out
from linprobe.probes.softmax import SoftmaxProbe, fit_probe
from linprobe.runtime.errors import LinprobeError
from tests.support.records import probe_record

PROBE = ProbeConfig(l2_path=(1e-1, 1e-2, 1e-3))
K = 4


def made_up(n=720, width=12, seed=0, signal=3.0):
    """Features with a direction for each class, labels, held-out rows last."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % K
    features = torch.randn(n, width, generator=generator)
    features[torch.arange(n), labels] += signal
    order = holdout_order(labels, PROBE.validation_fraction, generator)
    return features[order], labels[order]


def targets_of(labels, num_classes=K):
    return Targets(labels, num_classes, num_held_out(len(labels), PROBE.validation_fraction))


def made_data(**changes):
    (x, y), (xt, yt) = made_up(), made_up(240, seed=1)
    data = ControlData(targets_of(y), yt, inputs=changes.pop("inputs", (x, xt)), **changes)
    return data, x, xt


def method(seed):
    return SoftmaxProbe(replace(PROBE, seed=seed))


def controls(*names, repeats=2, seed=0, **changes):
    made, x, xt = made_data(**changes)
    return Controls(EvaluationOptions(names, repeats), made, method, seed), x, xt


def with_types(*names, data, repeats=3):
    return Controls(EvaluationOptions(names, repeats), data, method, 0)


def of_layer(run, layer, x, xt, rate):
    """The controls of a layer whose features are given raw, as the engine fits them."""
    return list(run.of_layer(layer, method(0).prepare(DenseFeatures(x)), xt, rate))


def fit(x, xt, data):
    return fit_probe(x, data.targets.labels, xt, data.test_labels, PROBE)


def error_of(x, xt, data):
    return fit(x, xt, data).test_error_rate


def test_shuffled_labels_leave_nothing_to_find():
    run, x, xt = controls("shuffled_labels")
    true = error_of(x, xt, run.data)
    assert true < 0.1
    records = of_layer(run, "a", x, xt, true)
    assert [(r.name, r.layer, r.repeat, r.seed) for r in records] == [
        ("shuffled_labels", "a", 0, 0),
        ("shuffled_labels", "a", 1, 1),
    ]
    for record in records:
        assert record.test_error_rate == pytest.approx(0.75, abs=0.12)
        low, high = record.test_error_ci95
        assert low < record.test_error_rate < high
        assert record.status == "converged"
        assert record.duality_gap <= PROBE.tol
        assert record.l2 in PROBE.l2_path
        assert record.selectivity is None


def test_shuffling_keeps_the_classes_of_both_parts_and_is_the_seeds():
    run, *_ = controls("shuffled_labels")
    labels = run.data.targets.labels
    cut = len(labels) - num_held_out(len(labels), PROBE.validation_fraction)
    made = run.shuffled(5)
    for part in (slice(0, cut), slice(cut, None)):
        assert torch.equal(made[part].bincount(), labels[part].bincount())
    assert not torch.equal(made, labels)
    assert torch.equal(made, run.shuffled(5))
    assert not torch.equal(made, run.shuffled(6))


def test_control_task_of_features_that_name_the_type_has_no_selectivity():
    # Eight types; features are one-hot types: any labelling of types is learned without error.
    types = torch.arange(240) % 8
    x, labels = torch.eye(8)[types], types % K
    data = ControlData(targets_of(labels), labels, types=(types, types))
    run = with_types("control_task", data=data)
    for record in of_layer(run, "a", x, x, 0.0):
        assert record.test_error_rate == 0.0
        assert record.selectivity == 0.0


def test_control_task_of_features_that_know_no_type_by_hand():
    # Features are constant: the probe says the commonest control label of the training rows.
    types = torch.tensor([0, 1, 1, 2, 2, 2] * 20)
    labels = torch.arange(120) % 2
    data = ControlData(targets_of(labels, 2), labels, types=(types, types))
    run = with_types("control_task", data=data, repeats=6)
    x = torch.ones(120, 2)
    shares = torch.tensor([1.0, 2.0, 3.0]) / 6
    seen = set()
    for record in of_layer(run, "a", x, x, 0.5):
        train, test = run.control_labels(record.seed)
        assert torch.equal(train, test)
        by_type = [int(train[types == t].unique()) for t in range(3)]
        ones = float(shares[torch.tensor(by_type) == 1].sum())
        assert record.test_error_rate == pytest.approx(min(ones, 1 - ones), abs=1e-6)
        assert record.selectivity == pytest.approx(min(ones, 1 - ones) - 0.5, abs=1e-6)
        seen.add(tuple(by_type))
    assert len(seen) > 2, "a draw of its own for each repeat"


def test_control_labels_are_uniform_over_classes():
    types = torch.arange(8000)
    data = ControlData(targets_of(types % K), types % K, types=(types, types))
    run = with_types("control_task", data=data)
    fit_rows = slice(0, 6000)
    labels = run.control_labels(0)[0][fit_rows]
    assert chisquare(labels.bincount().numpy()).pvalue > 1e-3


def test_types_of_held_out_rows_only_bring_no_class_of_their_own():
    held_out = num_held_out(60, PROBE.validation_fraction)
    types = torch.zeros(60, dtype=torch.int64)
    types[-held_out:] = torch.arange(1, held_out + 1)
    data = ControlData(targets_of(types % K), types % K, types=(types, types))
    run = with_types("control_task", data=data)
    for seed in range(5):
        assert len(run.control_labels(seed)[0].unique()) == 1


def test_structured_features_are_selective():
    run, x, xt = controls("control_task")
    record = of_layer(run, "a", x, xt, 0.05)[0]
    assert record.selectivity == pytest.approx(record.test_error_rate - 0.05)
    assert record.selectivity > 0.2


def test_random_features_have_the_layers_width_and_a_stated_form():
    run, *_ = controls("random_features")
    train, test = run.random_features(30, 7)
    assert train.shape == (720, 30)
    assert test.shape == (240, 30)
    assert float(train.min()) == 0.0
    # Half of a normal variable of variance 1: E relu^2 = 1 / 2.
    assert float(train.square().mean()) == pytest.approx(0.5, rel=0.2)
    assert torch.equal(train, run.random_features(30, 7)[0])
    assert not torch.equal(train, run.random_features(30, 8)[0])
    inputs = run.data.inputs
    moved = replace(run.data, inputs=tuple(5 * x + 3 for x in inputs))
    other = Controls(run.options, moved, method, 0).random_features(30, 7)
    torch.testing.assert_close(other[1], test, rtol=1e-3, atol=1e-3)


def test_random_features_are_probed_at_the_width_of_each_layer():
    run, x, xt = controls("random_features", repeats=1)
    narrow = of_layer(run, "a", x[:, :2].clone(), xt[:, :2], 0.5)[0]
    wide = of_layer(run, "b", x.repeat(1, 10), xt.repeat(1, 10), 0.5)[0]
    assert (narrow.layer, wide.layer) == ("a", "b")
    assert wide.test_error_rate + 0.1 < narrow.test_error_rate


def test_controls_leave_the_probe_of_a_layer_as_it_was():
    run, x, xt = controls("shuffled_labels", "control_task", repeats=1)
    before = fit(x, xt, run.data)
    prepared = method(0).prepare(DenseFeatures(x.clone(), owned=True))
    list(run.of_layer("a", prepared, xt, before.test_error_rate))
    after = method(0).fit(prepared, run.data.targets).tested(xt, run.data.test_labels)
    assert after.test_error_rate == before.test_error_rate
    assert after.objective == pytest.approx(before.objective, rel=1e-5)


def test_controls_that_need_no_fit():
    data, *_ = made_data()
    data.test_labels[:60] = data.targets.labels.bincount().argmax()
    probes = [probe_record(0, "input", 0.3), probe_record(1, "fc1", 0.1)]
    untrained = [probe_record(0, "input", 0.3), probe_record(1, "fc1", 0.6)]
    options = EvaluationOptions(("untrained", "input", "majority"))
    found = of_records(options, data, probes, untrained, untrained_seed=9)
    assert [(r.name, r.layer, r.test_error_rate) for r in found[:3]] == [
        ("untrained", "input", 0.3),
        ("untrained", "fc1", 0.6),
        ("input", None, 0.3),
    ]
    assert found[1].seed == 9
    assert found[1].l2 == untrained[1].l2
    wrong = (data.test_labels != data.targets.labels.bincount().argmax()).double().mean()
    assert found[3].test_error_rate == pytest.approx(float(wrong))
    assert (found[3].name, found[3].seed, found[3].status) == ("majority", None, None)
    assert of_records(EvaluationOptions(()), data, probes, untrained) == []


def test_refuses_what_it_cannot_do():
    with pytest.raises(LinprobeError, match=r"no control 'shuffle'; expected some of: shuffled_l"):
        EvaluationOptions(("shuffle",))
    with pytest.raises(LinprobeError, match="repeats is 0; expected a whole number from 1 on"):
        EvaluationOptions(repeats=0)
    for name in ("random_features", "control_task"):
        with pytest.raises(LinprobeError, match="start from the network's inputs"):
            controls(name, inputs=None)
    controls("shuffled_labels", inputs=None)


def blobs(n, spread=0.05):
    generator = torch.Generator().manual_seed(2)
    centres = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]])
    own = torch.arange(n) % 4
    return centres[own] + spread * torch.randn(n, 2, generator=generator), own


def test_types_are_separate_groups_in_both_splits():
    (train, own), (test, test_own) = blobs(200), blobs(80)
    found, test_found = input_types(train, test, 4, 0)
    name = found[:4]
    assert sorted(name.tolist()) == [0, 1, 2, 3]
    assert torch.equal(found, name[own])
    assert torch.equal(test_found, name[test_own])


def test_seed_decides_on_the_types():
    x = torch.rand(300, 5, generator=torch.Generator().manual_seed(1))
    one, again, other = (input_types(x, x, 9, s)[0] for s in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_fewer_different_inputs_than_types():
    x = torch.ones(6, 2)
    found, _ = input_types(x, x, 3, 0)
    assert len(found.unique()) == 1


def test_types_do_not_depend_on_the_number_of_threads():
    x = torch.rand(3000, 20, generator=torch.Generator().manual_seed(1))
    one = input_types(x, x, 30, 0)[0]
    with threadpool_limits(4):
        assert torch.equal(input_types(x, x, 30, 0)[0], one)
