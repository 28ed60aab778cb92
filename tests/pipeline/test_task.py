"""What is unusual about labels or a layer is said, and the other layers are fitted."""

import math

import pytest
import torch

import linprobe
from linprobe import LinprobeError
from linprobe.pipeline.label_sets import LabelSet, make_tasks
from tests.support.cases import make_case
from tests.support.options import grouped

PATH = (1e-1, 1e-2, 1e-3)
CASE = make_case("plain", 200, 8, 3)
X, Y = CASE.features.float(), CASE.labels
TRAIN, TEST = slice(0, 150), slice(150, 200)


def fitted(train, test=None, labels=Y[TRAIN], test_labels=Y[TEST], **options):
    test = {name: X[TEST] for name in train} if test is None else test
    return linprobe.fit_probes(train, labels, (test, test_labels), **grouped(l2=PATH, **options))


def test_nothing_is_said_of_what_is_usual():
    assert fitted({"a": X[TRAIN]}).notes == ()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_layer_that_is_not_finite_is_flagged_and_the_others_finish(value, split):
    bad = {"train": X[TRAIN].clone(), "test": X[TEST].clone()}
    bad[split][3, 2] = value
    train = {"a": X[TRAIN], "bad": bad["train"], "b": X[TRAIN]}
    report = fitted(train, {"a": X[TEST], "bad": bad["test"], "b": X[TEST]})
    assert report["bad"].record.status == "nonfinite_features"
    assert report["bad"].predictions is None
    assert report["a"].record.converged and report["b"].record.converged
    word, count = {"train": ("training", 150), "test": ("test", 50)}[split]
    reason = (
        f"1 of {count} {word} rows (the first is row 3) hold NaN or infinity (rows count from 0); "
        "leave such rows out, or mend what gives them"
    )
    assert report["bad"].record.reason == reason
    assert report.notes == (f"Layer 'bad': {reason}. No probe was fitted.",)
    assert "2 of 3 probes converged" in str(report) and "* marks the others" in str(report)
    assert [step.to_layer for step in report.run.checkpoints[0].steps] == ["b"]


def test_constant_features_say_so_and_predict_the_commonest_class():
    report = fitted({"flat": torch.full((150, 4), 7.0)}, {"flat": torch.full((50, 4), 7.0)})
    assert report.notes == ("Layer 'flat' is constant on the training samples.",)
    assert report["flat"].record.converged
    majority = report.run.dataset.majority_error_rate.test
    assert report["flat"].record.test_error_rate == pytest.approx(majority)


def test_features_that_tell_nothing_are_not_called_constant_and_have_scores():
    """At a large penalty a weight of zero is within the tolerance, and would rank nothing."""
    labels = (torch.arange(4000) % 100 == 0).long()
    train, test = torch.randn(2, 4000, 30, generator=torch.Generator().manual_seed(0))
    report = linprobe.fit_probes({"noise": train}, labels, ({"noise": test}, labels))
    assert not any("is constant" in note for note in report.notes)
    assert bool(report["noise"].weight.any())
    assert report["noise"].record.metric("auroc") != 0.5


def test_features_that_are_mostly_rounding_say_so():
    report = fitted({"deep": X[TRAIN] + 3e6}, {"deep": X[TEST] + 3e6})
    assert report.notes[0].startswith("Layer 'deep': what the probe uses varies little")


def test_a_class_without_training_samples_is_allowed_and_reported():
    test_labels = torch.where(torch.arange(50) < 5, 4, Y[TEST])
    report = fitted({"a": X[TRAIN]}, test_labels=test_labels)
    assert report.notes[1].startswith("No training sample has label 4: 5 test samples with it")
    assert report["a"].weight.shape == (4, 8) and report["a"].record.converged
    assert report["a"].record.test_cross_entropy == math.inf
    logits = report["a"].linear()(X[TEST])
    rate = float((logits.argmax(1) != test_labels).double().mean())
    assert rate == pytest.approx(report["a"].record.test_error_rate)


def test_fewer_samples_than_features_is_said():
    wide = make_case("wide", 40, 100, 3)
    x, y = wide.features.float(), wide.labels
    report = linprobe.fit_probes({"w": x[:30]}, y[:30], ({"w": x[30:]}, y[30:]), **grouped(l2=PATH))
    assert report["w"].record.converged
    assert len(report.notes) == 1
    assert "at least as many features as there are training samples (30): w;" in report.notes[0]


def test_layers_that_stop_short_are_named():
    report = fitted({"a": X[TRAIN]}, tol=1e-99)  # below the rounding of any gap but 0
    assert report["a"].record.status == "precision_limit"
    assert "Layer 'a': arithmetic ended before tol" in report.notes[0]


def test_tiny_classes_keep_a_sample_to_be_fitted_on():
    labels = torch.arange(11) % 10  # only class 0 has a sample to spare
    report = linprobe.fit_probes({"a": X[:11]}, labels, ({"a": X[:11]}, labels), **grouped(l2=PATH))
    assert report["a"].record.converged
    assert report.run.config.method.validation_fraction == pytest.approx(1 / 11)


def test_labels_that_all_differ_are_refused():
    labels = torch.arange(11)
    with pytest.raises(LinprobeError, match=r"stands only once.*numbers of the samples"):
        linprobe.fit_probes({"a": X[:11]}, labels, ({"a": X[:11]}, labels), **grouped(l2=PATH))


def test_memory_that_ends_while_solving(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")

    monkeypatch.setattr(linprobe.pipeline.task.SoftmaxProbe, "fit", fail)
    message = r"layer 'a': no memory left to solve 8 features .*memory_bytes.*reduce='random:2'"
    with pytest.raises(LinprobeError, match=message):
        fitted({"a": X[TRAIN]})


def test_other_errors_of_the_solver_are_not_hidden(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("a defect")

    monkeypatch.setattr(linprobe.pipeline.task.SoftmaxProbe, "fit", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        fitted({"a": X[TRAIN]})


def test_rising_rows_keep_their_labels_weights_and_parts():
    labels = torch.arange(60) % 3
    weight = torch.arange(60).double()  # that of row 0 is zero
    task = make_tasks(
        {None: LabelSet(labels, labels)},
        groups=None,
        config=linprobe.ProbeConfig(),
        evaluation=linprobe.EvaluationOptions(),
        seed=0,
        sample_weight=weight,
    )[None]
    found, end = task.rising(), task.targets.num_fit
    assert not torch.equal(found.order, task.order)
    for part in (slice(end), slice(end, task.num_train), slice(task.num_train, None)):
        assert torch.equal(found.order[part], task.order[part].sort().values)
    assert found.order[-1] == 0 and found.targets.num_held_out == task.targets.num_held_out
    assert torch.equal(found.targets.labels, labels[found.order[:-1]])
    assert torch.equal(found.targets.sample_weight, weight[found.order[:-1]])
