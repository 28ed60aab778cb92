"""Old keywords work for a release, with a warning that names the new place."""

import pytest
import torch

import linprobe
from tests.support.options import grouped

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 3
NETWORK = torch.nn.Sequential(torch.nn.Identity(), torch.nn.ReLU())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"l2": 1e-2}, r"method=linprobe.ProbeConfig\(l2_path=...\)"),
        ({"tol": 1e-3}, r"method=linprobe.ProbeConfig\(tol=...\)"),
        ({"controls": ["majority"]}, r"evaluation=linprobe.EvaluationOptions\(controls=...\)"),
        ({"mdl": True}, r"evaluation=linprobe.EvaluationOptions\(mdl=...\)"),
    ],
)
def test_old_keywords_mean_what_they_meant(old, new):
    with pytest.warns(DeprecationWarning, match=new):
        before = linprobe.fit_probes({"a": X}, Y, ({"a": X}, Y), **old)
    after = linprobe.fit_probes({"a": X}, Y, ({"a": X}, Y), **grouped(**old))
    assert torch.equal(before["a"].weight, after["a"].weight)
    assert before.run.config == after.run.config
    assert before["a"].controls == after["a"].controls


def test_old_keywords_of_probe():
    with pytest.warns(DeprecationWarning, match=r"extraction=linprobe.ExtractionOptions\(reduce"):
        report = linprobe.probe(NETWORK, (X, Y), (X, Y), layers="1", reduce="random:2")
    assert report["1"].record.num_features == 2


@pytest.mark.parametrize("name", ["nonsense", "max_passes", "repeats"])
def test_keywords_that_never_were(name):
    with pytest.raises(TypeError, match=rf"probe\(\) got an unexpected keyword argument '{name}'"):
        linprobe.probe(NETWORK, (X, Y), (X, Y), **{name: 1})


def test_an_old_keyword_joins_a_group():
    method = linprobe.ProbeConfig(tol=1e-3)
    with pytest.warns(DeprecationWarning):
        report = linprobe.fit_probes({"a": X}, Y, ({"a": X}, Y), method=method, l2=1e-2)
    assert report.run.config.method.tol == 1e-3
    assert report["a"].record.l2 == 1e-2


@pytest.mark.parametrize(
    ("group", "value", "message"),
    [
        ("method", {"tol": 1e-3}, r"method is a dict; expected linprobe.ProbeConfig\(...\)"),
        (
            "method",
            linprobe.ExtractionOptions(),
            "method is a ExtractionOptions; expected",
        ),
        ("evaluation", "majority", r"evaluation is a str; expected linprobe.EvaluationOptions"),
    ],
)
def test_options_of_another_class(group, value, message):
    with pytest.raises(linprobe.LinprobeError, match=message):
        linprobe.probe(NETWORK, (X, Y), (X, Y), **{group: value})
