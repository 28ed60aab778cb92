"""Probes as modules: they predict what the probe did, or say how often they would not."""

import pytest
import torch
from torch import nn

import linprobe
from linprobe import LinprobeError, ProbeConfig
from tests.pipeline.test_scale import massive

Y = torch.arange(600) % 2


def far(n, seed, mean=1e4, size=0.01, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    x = torch.randn(n, 20, generator=draw, dtype=torch.float64) + 2 * torch.eye(20)[y]
    return (mean + size * x).to(dtype), y


def probed(train, test, **method):
    (x, y), (xt, yt) = train, test
    method = ProbeConfig(method.pop("l2", (1e-2, 1e-4)), **method)
    return linprobe.fit_probes({"h": x}, y, ({"h": xt}, yt), method=method)


def predicted(module, features):
    with torch.no_grad():
        return module(features).argmax(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", ["layer", "feature"])
def test_a_module_that_centres_predicts_what_the_probe_did(dtype, scale, tmp_path):
    train, test = (far(*case, mean=1e5, dtype=torch.float32) for case in ((600, 0), (300, 1)))
    report = probed(train, test, scale=scale)
    report.save(tmp_path / "run")
    for probe in (report["h"], linprobe.load_report(tmp_path / "run")["h"]):
        module = probe.module(dtype, check=test[0])
        assert isinstance(module, nn.Module) and module.linear.weight.dtype == dtype
        assert torch.equal(predicted(module, test[0]), probe.predictions.predicted)
        state = module.state_dict()
        assert set(state) == {"mean", "scale", "linear.weight", "linear.bias"}


def test_a_plain_linear_is_refused_where_float32_can_not_subtract(tmp_path):
    train, test = far(600, 0, mean=1e6), far(300, 1, mean=1e6)
    report = probed(train, test)
    report.save(tmp_path / "run")
    for probe in (report["h"], linprobe.load_report(tmp_path / "run")["h"]):
        changes = probe.record.float32_changes
        assert changes > 3
        with pytest.raises(LinprobeError, match=f"predicts {changes} of 300 .*use module"):
            probe.linear()
        exact = probe.linear(torch.float64, check=test[0])
        assert type(exact) is nn.Linear
        assert torch.equal(predicted(exact, test[0]), probe.predictions.predicted)


def test_rounded_features_of_the_issue_are_predicted_as_recorded():
    train, test = far(600, 0), far(300, 1)
    probe = probed(train, test, l2=None)["h"]
    rounded = test[0].float()
    centred = predicted(probe.module(), rounded)
    exact = predicted(probe.linear(torch.float64), rounded.double())
    assert torch.equal(centred, exact), "only the features are rounded, no product"


def test_ordinary_features_have_a_plain_linear():
    train, test = far(600, 0, mean=1.0, size=1.0), far(300, 1, mean=1.0, size=1.0)
    probe = probed(train, test)["h"]
    assert probe.record.float32_changes == 0
    linear = probe.linear(check=test[0])
    assert type(linear) is nn.Linear
    assert torch.equal(predicted(linear, test[0].float()), probe.predictions.predicted)


def test_a_check_compares_with_the_kept_predictions():
    train, test = far(600, 0, mean=1.0, size=1.0), far(300, 1, mean=1.0, size=1.0)
    probe = probed(train, test)["h"]
    changes = int(
        (predicted(probe.linear(), -test[0].float()) != probe.predictions.predicted).sum()
    )
    with pytest.raises(LinprobeError, match=f"predicts {changes} of 300 test samples otherwise"):
        probe.module(check=-test[0])
    with pytest.raises(LinprobeError, match="200 samples to check and 300 kept predictions"):
        probe.linear(check=test[0][:200])
    far_away = probed(far(600, 0), far(300, 1))["h"]
    with pytest.raises(LinprobeError, match=r"in torch.bfloat16 predicts \d+ of 300"):
        far_away.linear(torch.bfloat16, check=far(300, 1)[0])


def test_columns_that_are_scaled_each_are_folded_back():
    train, test = massive(600, 0, 1e6), massive(300, 1, 1e6)
    train[0][:, 7] = test[0][:, 7] = 2.0
    probe = probed(train, test)["h"]
    assert probe.record.scale == "feature"
    assert torch.equal(predicted(probe.module(), test[0]), probe.predictions.predicted)
    test[0][:, 7] = 1e9  # did not vary in training
    assert torch.equal(predicted(probe.module(), test[0]), probe.predictions.predicted)


def test_numbers_that_a_dtype_does_not_hold_are_refused():
    train, test = far(600, 0, 0.0, 1e-60), far(300, 1, 0.0, 1e-60)
    probe = probed(train, test)["h"]
    for export in (probe.linear, probe.module):
        with pytest.raises(LinprobeError, match=r"use torch.float64|use module"):
            export()
    exact = probe.module(torch.float64, check=test[0])
    assert torch.equal(predicted(exact, test[0]), probe.predictions.predicted)


def test_a_class_without_training_samples_is_never_predicted():
    (x, y), (xt, yt) = far(600, 0, 1.0, 1.0), far(300, 1, 1.0, 1.0)
    report = linprobe.fit_probes({"h": x}, 2 * y, ({"h": xt}, 2 * yt), num_classes=3)
    module = report["h"].module()
    assert float(module.linear.bias.detach()[1]) == float("-inf")
    assert torch.equal(predicted(module, xt), report["h"].predictions.predicted)


def test_a_probe_saved_without_its_mean_can_only_be_plain():
    from dataclasses import replace

    probe = probed(far(600, 0, 1.0, 1.0), far(300, 1, 1.0, 1.0))["h"]
    old = replace(probe, mean=None, scale=None)
    assert type(old.linear()) is nn.Linear
    with pytest.raises(LinprobeError, match="saved without the features' mean"):
        old.module()
