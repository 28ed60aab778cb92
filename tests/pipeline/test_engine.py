"""The one loop behind `probe`, `fit_probes` and the experiments."""

import numpy as np
import pytest
import torch
from torch import nn

import linprobe
from linprobe.runtime.errors import LinprobeError
from tests.support.options import grouped

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
    options = grouped(l2=PATH, float64=False)
    single = linprobe.probe(nn.Sequential(far).float(), *data, layers=["0"], **options)
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
