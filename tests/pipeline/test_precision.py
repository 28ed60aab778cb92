"""What varies far below the size of activations: every way in sees it, or says that it can not."""

import numpy as np
import pytest
import torch
from torch import nn

import linprobe
from linprobe import load_run
from linprobe.cli import main as cli
from linprobe.probes.config import ProbeConfig

SHIFT, SIZE = 1.0, 1e-8
METHOD = ProbeConfig((1e-2, 1e-4))


def data(n, seed):
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    return torch.randn(n, 20, generator=draw).double() + 2 * torch.eye(20)[y].double(), y


def shifted():
    layer = nn.Linear(20, 20).double()
    with torch.no_grad():
        layer.weight.copy_(SIZE * torch.eye(20))
        layer.bias.fill_(SHIFT)
    return layer


@pytest.fixture(scope="module")
def far():
    (x, y), (xt, yt) = data(600, 0), data(300, 1)
    layer = shifted()
    with torch.no_grad():
        return layer(x), y, layer(xt), yt


def arrays(x, y, xt, yt):
    report = linprobe.fit_probes({"0": x}, y, ({"0": xt}, yt), method=METHOD)
    return report["0"].record


def test_every_way_in_sees_what_float64_holds(far, tmp_path, capsys):
    x, y, xt, yt = far
    (raw, _), (raw_test, _) = data(600, 0), data(300, 1)
    network = nn.Sequential(shifted())
    for name, part in (("train", x), ("test", xt)):
        np.save(tmp_path / f"{name}.npy", part.numpy())
    records = [
        linprobe.probe(network, (raw, y), (raw_test, yt), layers="0", method=METHOD)["0"].record,
        arrays(*far),
        arrays(x.numpy(), y.numpy(), xt.numpy(), yt.numpy()),
        arrays(tmp_path / "train.npy", y, tmp_path / "test.npy", yt),
        arrays(x.numpy().astype(">f8"), y, xt.numpy().astype(">f8"), yt),
    ]
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=xt, y_test=yt)
    call = f"probe torch.nn:Identity --data npz:{tmp_path}/a.npz --layers :in --out {tmp_path}/run"
    assert cli.main([*call.split(), "--l2", "1e-2,1e-4"]) == 0, capsys.readouterr().err
    records.append(load_run(tmp_path / "run").checkpoints[0].probes[0])
    for record in records:
        assert record.dtype == "float64" and record.converged and not record.rounded
        assert record.test_error_rate == pytest.approx(0.08, abs=0.01)


def test_float32_says_that_nothing_is_left(far):
    x, y, xt, yt = far
    report = linprobe.fit_probes({"0": x.float()}, y, ({"0": xt.float()}, yt), method=METHOD)
    assert report["0"].record.rounded and report["0"].record.test_error_rate > 0.4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_activations_of_16_bits_are_judged_as_such(dtype):
    (x, y), (xt, yt) = data(600, 0), data(300, 1)
    x, xt = (100 + 0.2 * part for part in (x, xt))
    network = nn.Sequential(nn.Identity()).to(dtype)
    train, test = (x.to(dtype), y), (xt.to(dtype), yt)
    ways = [
        linprobe.probe(network, train, test, layers="0", method=METHOD),
        linprobe.fit_probes({"0": train[0]}, y, ({"0": test[0]}, yt), method=METHOD),
        # As they are kept where a file format lacks them.
        linprobe.fit_probes(
            {"0": train[0].float().numpy()}, y, ({"0": test[0].float().numpy()}, yt), method=METHOD
        ),
    ]
    for report in ways:
        assert report["0"].record.rounded
        assert any("varies little beyond the rounding" in note for note in report.notes)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_ordinary_activations_of_16_bits_raise_no_alarm(dtype):
    (x, y), (xt, yt) = data(600, 0), data(300, 1)
    x, xt = (part.relu().add(1).to(dtype) for part in (x, xt))
    report = linprobe.fit_probes({"0": x}, y, ({"0": xt}, yt), method=METHOD)
    assert not report["0"].record.rounded and not report.notes


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_large_whole_numbers_keep_their_last_digits(dtype):
    (x, y), (xt, yt) = data(600, 0), data(300, 1)
    whole = [(1_000_000_000 + 5 * part).to(dtype) for part in (x, xt)]
    small = [part.to(torch.float64) - 1_000_000_000 for part in whole]
    found, expected = arrays(whole[0], y, whole[1], yt), arrays(small[0], y, small[1], yt)
    assert found.test_error_rate == expected.test_error_rate
    assert not found.rounded


def test_features_beyond_float64_say_what_to_do():
    (x, y), (xt, yt) = data(60, 0), data(30, 1)
    report = linprobe.fit_probes({"0": 1e-310 * x}, y, ({"0": 1e-310 * xt}, yt), method=METHOD)
    assert report["0"].record.status == "precision_limit" and report["0"].weight is None
    assert any("multiply them by a number" in note for note in report.notes)
