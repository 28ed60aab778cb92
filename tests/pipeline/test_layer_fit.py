"""The record, the predictions and the tensors of one layer."""

import math
from dataclasses import fields

import pytest
import torch

from linprobe.core.solvers.base import Status
from linprobe.evaluation.plan import evaluate_probe
from linprobe.evaluation.resampling import Resamples
from linprobe.evaluation.statistics import wilson_interval
from linprobe.pipeline.layer_fit import LayerFeatures, fit_layer
from linprobe.pipeline.task import Task
from linprobe.probes.base import Targets
from linprobe.probes.config import ProbeConfig
from linprobe.probes.holdout import num_held_out
from linprobe.probes.softmax import SoftmaxProbe
from linprobe.records.schema import ProbeRecord
from tests.support.tiny import tiny_dataset

PATH = (1e-1, 1e-2)
DRAWS = torch.Generator().manual_seed(0)
Y = torch.arange(120) % 3
X = torch.randn(120, 6, generator=DRAWS) + 2 * torch.eye(6)[Y]


class Kept(SoftmaxProbe):
    """The certified method; keeps what it fits."""

    def fit(self, features, targets, on_solve=None):
        self.fitted = super().fit(features, targets, on_solve)
        return self.fitted


@pytest.fixture
def recorded():
    """Fits one layer: the probe of the engine, the fitted one it was made of, and the data."""

    def record(spoil=None, split="train", stated="mean"):
        data = tiny_dataset()
        x, xt = (x.flatten(1).float() for x in (data.train_images, data.test_images))
        if spoil is not None:
            {"train": x, "test": xt}[split][3, 0] = spoil
        y, yt = data.train_labels, data.test_labels
        method = Kept(ProbeConfig(l2_path=(1e-1, 1e-2, 1e-3)))
        targets = Targets(y, 10, num_held_out(len(y), method.config.validation_fraction))
        order = torch.arange(len(y))
        task = Task(order, targets, yt, method.config, method_of=lambda layer: method)
        features = LayerFeatures(x.clone(), xt.clone(), torch.float16, stated)
        probe = fit_layer("conv1", 7, features, task)
        fitted = method.fitted.tested(xt, yt) if spoil is None else None
        return probe, fitted, (y, yt)

    return record


def test_record_takes_every_number_from_the_probe(recorded):
    probe, fitted, (_, test_labels) = recorded()
    record = probe.record
    assert (record.layer, record.index, record.reducer) == ("conv1", 7, "mean")
    assert (record.num_features, record.dtype, record.reason) == (784, "float16", None)
    assert type(record.status) is str
    assert record.status == fitted.status
    interval = wilson_interval(round(50 * fitted.test_error_rate), len(test_labels))
    assert record.test_error_ci95 == interval
    own = {"layer", "index", "num_features", "reducer", "dtype", "reason", "missing"}
    own |= {"status", "test_error_ci95", "evaluation", "seconds", "float32_changes"}
    own |= {"native", "no_float64", "path"}
    names = {item.name for item in fields(ProbeRecord)} - own
    assert len(names) == 15
    for name in names:
        assert getattr(record, name) == getattr(fitted, name), name
    assert record.seconds > 0
    assert torch.equal(probe.weight, fitted.weight) and torch.equal(probe.bias, fitted.bias)


@pytest.mark.parametrize(("split", "word"), [("train", "training"), ("test", "test")])
@pytest.mark.parametrize("spoil", [torch.nan, torch.inf, -torch.inf])
def test_features_that_are_not_finite_leave_everything_unknown(recorded, split, word, spoil):
    probe, *_ = recorded(spoil, split)
    record = probe.record
    assert record.status == Status.NONFINITE_FEATURES.value
    assert f" {word} rows (the first is row " in record.reason
    assert record.test_error_rate != record.test_error_rate
    assert all(end != end for end in record.test_error_ci95)
    assert not record.converged
    assert record.evaluation is None
    assert probe.predictions is None and probe.weight is None and probe.bias is None


def test_evaluation_and_predictions_are_those_of_the_probe(recorded):
    probe, fitted, (train_labels, test_labels) = recorded()
    evaluation, predictions = probe.record.evaluation, probe.predictions
    wrong = predictions.predicted != test_labels
    assert float(wrong.double().mean()) == fitted.test_error_rate
    loss = -float(predictions.own_log_probability.double().mean())
    assert loss == pytest.approx(fitted.test_cross_entropy, rel=1e-6)
    gained = evaluation.prior_entropy_bits - fitted.test_cross_entropy / math.log(2)
    assert evaluation.v_information_bits == pytest.approx(gained)
    low, high = evaluation.optimum_error_interval
    assert low <= fitted.test_error_rate <= high
    assert evaluation.num_undecided == fitted.optimum_error.num_undecided
    resamples = Resamples(test_labels, 0)
    expected, deviations = evaluate_probe(fitted, train_labels, test_labels, resamples)
    assert evaluation == expected
    for metric, values in predictions.deviations.items():
        assert values.tolist() == pytest.approx(deviations[metric].tolist(), abs=1e-6)
