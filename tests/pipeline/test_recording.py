"""Records hold what the probe says, and nothing that is unknown is made up."""

import math
from dataclasses import fields

import pytest
import torch

from linprobe.core.solvers.base import Status
from linprobe.pipeline.recording import evaluate_probe, probe_record
from linprobe.probes.protocol import ProbeConfig, fit_probe
from linprobe.records.schema import ProbeRecord
from tests.support.tiny import tiny_dataset

PROBE = ProbeConfig(l2_path=(1e-1, 1e-2, 1e-3))


@pytest.fixture
def splits():
    data = tiny_dataset()
    train, test = (x.flatten(1).float() for x in (data.train_images, data.test_images))
    return train, data.train_labels, test, data.test_labels


def test_record_takes_every_number_from_the_probe(splits):
    fitted = fit_probe(*splits, PROBE)
    record = probe_record("conv1", 7, fitted, 50, reducer="mean", dtype="float32")
    assert (record.layer, record.index, record.reducer) == ("conv1", 7, "mean")
    assert type(record.status) is str
    assert (record.dtype, record.reason) == ("float32", None)
    own = {"layer", "index", "num_features", "reducer", "status", "test_error_ci95"}
    own |= {"evaluation", "dtype", "reason"}
    for item in fields(ProbeRecord):
        if item.name not in own:
            assert getattr(record, item.name) == getattr(fitted, item.name)


def test_unknown_error_rate_has_an_unknown_interval(splits):
    splits[0][0, 0] = torch.nan
    record = probe_record("x", 0, fit_probe(*splits, PROBE), 50)
    assert record.status == Status.NONFINITE_FEATURES.value
    assert all(end != end for end in record.test_error_ci95)
    assert not record.converged


def test_evaluation_and_predictions_are_those_of_the_probe(splits):
    _, train_labels, _, test_labels = splits
    fitted = fit_probe(*splits, PROBE)
    evaluation, predictions = evaluate_probe(fitted, train_labels, test_labels)
    wrong = predictions.predicted != test_labels
    assert float(wrong.double().mean()) == fitted.test_error_rate
    loss = -float(predictions.own_log_probability.double().mean())
    assert loss == pytest.approx(fitted.test_cross_entropy, rel=1e-6)
    gained = evaluation.prior_entropy_bits - fitted.test_cross_entropy / math.log(2)
    assert evaluation.v_information_bits == pytest.approx(gained)
    low, high = evaluation.optimum_error_interval
    assert low <= fitted.test_error_rate <= high
    assert evaluation.num_undecided == fitted.optimum_error.num_undecided
    assert probe_record("x", 0, fitted, 50, evaluation).evaluation is evaluation


def test_no_evaluation_of_features_that_are_not_finite(splits):
    splits[2][3, 0] = torch.inf
    assert evaluate_probe(fit_probe(*splits, PROBE), splits[1], splits[3]) is None
