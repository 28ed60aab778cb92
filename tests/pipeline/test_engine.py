"""The one loop behind `probe`, `fit_probes` and the experiments."""

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import nn

import linprobe
from linprobe.core.solvers.base import Status
from linprobe.evaluation.plan import evaluate_probe
from linprobe.evaluation.resampling import Resamples
from linprobe.evaluation.statistics import wilson_interval
from linprobe.pipeline.engine import LayerFeatures, fit_layer
from linprobe.pipeline.task import Task
from linprobe.probes.base import Targets
from linprobe.probes.config import ProbeConfig
from linprobe.probes.holdout import num_held_out
from linprobe.probes.softmax import SoftmaxProbe
from linprobe.records.schema import ProbeRecord
from linprobe.runtime.errors import LinprobeError
from tests.support.options import grouped
from tests.support.tiny import tiny_dataset

PATH = (1e-1, 1e-2)
DRAWS = torch.Generator().manual_seed(0)
Y = torch.arange(120) % 3
X = torch.randn(120, 6, generator=DRAWS) + 2 * torch.eye(6)[Y]


def read_only(array):
    array = np.ascontiguousarray(array)
    array.setflags(write=False)
    return array


def test_no_array_of_the_user_is_written_to(tmp_path):
    """Read-only arrays enter everywhere, and are the same afterwards, byte by byte."""
    arrays = {
        "float32": read_only(X.numpy()),
        "float64": read_only(X.double().numpy()),
        "float16": read_only(X.half().numpy()),
        "labels": read_only(Y.numpy()),
        "types": read_only((Y * 2).numpy()),
        "groups": read_only((torch.arange(120) // 2).numpy()),
    }
    before = {name: array.tobytes() for name, array in arrays.items()}
    x, y = arrays["float32"], arrays["labels"]
    types = arrays["types"], arrays["types"]
    every = grouped(l2=PATH, controls=["shuffled_labels", "control_task"], mdl=True, types=types)
    layers = {name: arrays[name] for name in ("float32", "float64", "float16")}
    linprobe.fit_probes(layers, y, (layers, y), groups=arrays["groups"], **every)
    network = nn.Sequential(nn.Identity(), nn.Linear(6, 3))
    controls = ["shuffled_labels", "control_task", "untrained", "random_features", "input"]
    options = grouped(l2=PATH, controls=controls, repeats=1, mdl=True)
    report = linprobe.probe(network, (x, y), (x, y), layers=["0", "1"], **options)
    report.save(tmp_path / "run")
    assert {name: array.tobytes() for name, array in arrays.items()} == before


def test_no_tensor_of_the_user_is_written_to():
    x, y = X.clone(), Y.clone()
    linprobe.fit_probe(x, y, x, y)
    network = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True))
    linprobe.probe(network, (x, y), (x, y), layers=["0", ":in"], **grouped(l2=PATH))
    linprobe.extract_features(network, x, ["0", "1"])
    assert torch.equal(y, Y)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_dtype_of_activations_reaches_the_record(dtype):
    network = nn.Sequential(nn.Identity(), nn.Linear(6, 3)).to(dtype)
    report = linprobe.probe(network, (X, Y), (X, Y), layers=["1"], **grouped(l2=PATH))
    assert report["1"].record.dtype == str(dtype).removeprefix("torch.")
    features = linprobe.fit_probes({"a": X.to(dtype)}, Y, ({"a": X.to(dtype)}, Y))
    assert features["a"].record.dtype == str(dtype).removeprefix("torch.")


def test_float64_activations_are_solved_as_float64():
    """What varies by 1e-9 around a large mean is there in float64, and gone in float32."""
    far = nn.Linear(6, 6).double()
    with torch.no_grad():
        far.weight.copy_(1e-9 * torch.eye(6))
        far.bias.fill_(1.0)
    data = (X.double(), Y), (X.double(), Y)
    exact = linprobe.probe(nn.Sequential(far), *data, layers=["0"], **grouped(l2=(1e-3, 1e-5)))
    near = linprobe.fit_probes(
        {"0": X.double()}, Y, ({"0": X.double()}, Y), **grouped(l2=(1e-3, 1e-5))
    )
    assert exact["0"].record.test_error_rate == near["0"].record.test_error_rate
    assert exact["0"].record.converged and not exact["0"].record.rounded
    single = linprobe.probe(nn.Sequential(far).float(), *data, layers=["0"], **grouped(l2=PATH))
    assert single["0"].record.test_error_rate > exact["0"].record.test_error_rate + 0.2


def test_a_failed_probe_is_recorded_and_cannot_be_exported(tmp_path):
    x = X.clone()
    x[3, 2] = torch.nan
    report = linprobe.fit_probes({"a": X, "bad": x}, Y, ({"a": X, "bad": X}, Y))
    assert report["bad"].weight is None
    assert report["bad"].record.reason
    with pytest.raises(LinprobeError, match=r"layer 'bad' has no probe \(nonfinite_features\)"):
        report["bad"].linear()
    report.save(tmp_path / "run")
    again = linprobe.load_report(tmp_path / "run")
    assert again["bad"].weight is None
    assert again["bad"].record.reason == report["bad"].record.reason


def test_stages_share_the_wall_time():
    report = linprobe.fit_probes({"a": X, "b": X}, Y, ({"a": X, "b": X}, Y))
    stages = report.run.checkpoints[0].stages
    assert set(stages) == {"extract", "solve", "evaluate"}
    assert all(seconds >= 0 for seconds in stages.values())
    assert 0 < sum(stages.values()) <= report.run.seconds


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
