"""Rows that hold NaN or infinity are counted, and named in the user's order."""

import numpy as np
import pytest
import torch
from torch import nn

import linprobe
from linprobe import ExtractionOptions, ProbeConfig
from linprobe.activations.extract import Extractor
from linprobe.data.inputs import Source
from linprobe.data.splits import Split
from linprobe.pipeline.meter import Meter
from linprobe.pipeline.network_layers import NetworkLayers
from linprobe.runtime.progress import Tracker, ignore

Y = torch.arange(300) % 2
X = torch.randn(300, 6, generator=torch.Generator().manual_seed(0)) + 2 * torch.eye(6)[Y]
PLAIN = ProbeConfig((1e-3,))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), nn.ReLU())


@pytest.mark.parametrize("kind", ["nan", "inf", "-inf"])
def test_rows_are_those_of_the_users_data(kind):
    x, xt = X.clone(), X.clone()
    x[[211, 17, 299], 3] = float(kind)
    xt[[5, 100], 0] = float(kind)
    report = linprobe.fit_probes({"bad": x, "ok": X}, Y, ({"bad": xt, "ok": X}, Y), method=PLAIN)
    assert report["ok"].record.converged
    assert report["bad"].record.reason == (
        "3 of 300 training rows (the first is row 17) and 2 of 300 test rows (the first is row 5) "
        "hold NaN or infinity (rows count from 0); leave such rows out, or mend what gives them"
    )


@pytest.mark.parametrize("container", [torch.as_tensor, np.asarray])
def test_a_networks_inputs_are_found_by_their_rows(container):
    x = X.clone()
    x[[123, 64], 1] = torch.nan
    data, test = (container(x), container(Y)), (container(X), container(Y))
    report = linprobe.probe(network(), data, test, method=PLAIN)
    reason = report["0"].record.reason
    assert "2 of 300 training rows (the first is row 64) hold NaN" in reason
    # All layers share the reason, so that it is said once.
    (note,) = [note for note in report.notes if "NaN" in note]
    assert note == f"2 layers (0, 1): {reason}. No probe was fitted."


@pytest.mark.parametrize(
    ("dtype", "overflows"), [(torch.float16, True), (torch.bfloat16, False), (torch.float32, False)]
)
def test_float16_that_ends_at_65504_is_named_as_the_cause(dtype, overflows):
    x = X.clone()
    x[40, 2] = 7e4
    features = x.to(dtype)
    report = linprobe.fit_probes({"a": features, "b": X}, Y, ({"a": X, "b": X}, Y), method=PLAIN)
    reason = report["a"].record.reason
    assert bool(reason) == overflows
    if overflows:
        assert reason.startswith("1 of 300 training rows (the first is row 40) hold NaN")
        assert "float16 ends at 65,504: use bfloat16 or float32, or leave such rows out" in reason


def test_activations_of_a_float16_network_that_overflow():
    net = network()
    with torch.no_grad():
        net[0].weight.mul_(3e4)
    report = linprobe.probe(net.half(), (X, Y), (X, Y), layers="0", method=PLAIN)
    assert "float16 ends at 65,504" in report["0"].record.reason


def test_centring_does_not_spread_one_row_over_all():
    x = X.double()
    x[77, 0] = torch.inf
    extractor = Extractor(nn.Identity(), ExtractionOptions(), 0, torch.device("cpu"))
    splits = [Split.read(Source((x, Y), name, 100), None) for name in ("train", "test")]
    example = splits[0].source.first()
    points, _ = extractor.plan({"": ":in"}, example, 600, 1e9, skip_unfit=False)
    source = NetworkLayers(extractor, splits, points, None, 1e9, centre=True)
    meter = Meter(Tracker(ignore, 1.0), "network", {"": 1.0}, num_solves=2)
    (group,) = source.groups(meter, [""])
    features = group[""]()
    assert features.offset is None
    finite = torch.isfinite(features.train).all(1)
    assert (~finite).nonzero().flatten().tolist() == [77]
