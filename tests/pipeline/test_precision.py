"""What varies far below the size of activations: every way in sees it, or says that it can not."""

import numpy as np
import pytest
import torch
from torch import nn

import linprobe
from linprobe import load_run
from linprobe.activations.extract import Extractor
from linprobe.cli import main as cli
from linprobe.pipeline import engine
from linprobe.pipeline.layer_fit import fit_layer
from linprobe.probes.config import ProbeConfig
from linprobe.runtime.errors import LinprobeError
from tests.support.nets import Encoder, sentences

SHIFT, SIZE = 1.0, 1e-8
METHOD = ProbeConfig((1e-2, 1e-4))
OWN = linprobe.ExtractionOptions(float64=False)


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
        linprobe.probe(network, train, test, layers="0", method=METHOD, extraction=OWN),
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


class Sunk(nn.Module):
    """`a` varies as usual, `b` by 1e-8 around 1, and so does `c`, after a cast if there is one."""

    def __init__(self, cast=False):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(20, 20), shifted().float(), nn.Identity()
        self.cast = cast
        with torch.no_grad():
            self.a.weight.copy_(1.1 * torch.eye(20)), self.a.bias.zero_()

    def forward(self, x):
        x = self.b(self.a(x)) * 1  # which deviations can't do
        return self.c(x.float() if self.cast else x)


def raw_data():
    (x, y), (xt, yt) = data(600, 0), data(300, 1)
    return (x.float(), y), (xt.float(), yt)


def probed(network, method=METHOD, **options):
    found = options.pop("extraction", {})
    extraction = linprobe.ExtractionOptions(**found)
    return linprobe.probe(
        network,
        *raw_data(),
        layers=["a", "b", "c"],
        method=method,
        extraction=extraction,
        **options,
    )


def test_layers_that_drown_in_float32_are_read_in_float64_and_keep_both_probes():
    network = Sunk()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    report = probed(network)
    a, b, c = report.records
    assert (a.dtype, a.native, a.rounded) == ("float32", None, False)
    for record in (b, c):
        assert (record.dtype, record.rounded, record.no_float64) == ("float64", False, None)
        assert record.test_error_rate == pytest.approx(0.08, abs=0.01)
        own = record.native
        assert own.dtype == "float32" and own.rounded and own.native is None
        assert own.test_error_rate > 0.4 and own.evaluation is not None
    assert str(report).count("converged, read in float64") == 2
    frame = report.to_pandas().set_index("layer")
    assert list(frame.native_dtype[1:]) == ["float32", "float32"]
    assert frame.native_test_error_rate["b"] == b.native.test_error_rate
    for name, value in network.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, before[name])


class Turned(nn.Module):
    """`a` is the data; `b` turns it after it shrank its first two columns, and adds ten."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Identity(), nn.Linear(20, 20)
        turn = torch.linalg.qr(torch.randn(20, 20, generator=torch.Generator().manual_seed(0))).Q
        with torch.no_grad():
            self.b.weight.copy_(turn * torch.tensor([3e-7] * 2 + [1.0] * 18))
            self.b.bias.fill_(10.0)

    def forward(self, x):
        return self.b(self.a(x)) * 1


@pytest.mark.parametrize("again", [True, False])
def test_a_layer_is_read_in_float64_where_its_penalty_makes_rounding_count(again):
    method = ProbeConfig((1e-4, 1e-14, 1e-17) if again else (1e-2, 1e-4))
    report = linprobe.probe(Turned(), *raw_data(), layers=["a", "b"], method=method)
    a, b = report.records
    assert (a.dtype, a.native, a.rounded) == ("float32", None, False)
    assert not report.notes
    if not again:
        assert (b.dtype, b.native, b.rounded) == ("float32", None, False)
        return
    assert (b.dtype, b.rounded, b.native.dtype, b.native.rounded) == (
        *("float64", False),
        *("float32", True),
    )
    assert b.test_error_rate == pytest.approx(0.08, abs=0.01)
    assert b.native.test_error_rate > b.test_error_rate + 0.01


def test_float64_is_forced_or_forbidden():
    every = probed(Sunk(), extraction={"float64": True}).records
    assert [record.dtype for record in every] == 3 * ["float64"]
    assert not any(record.native or record.rounded for record in every)
    none = probed(Sunk(), extraction={"float64": False})
    assert [record.dtype for record in none.records] == 3 * ["float32"]
    assert [record.rounded for record in none.records] == [False, True, True]
    assert "Layer 'b' is constant on the training samples." in none.notes


def test_a_network_that_casts_keeps_its_own_probe_and_says_why():
    report = probed(Sunk(cast=True))
    b, c = report["b"].record, report["c"].record
    assert b.dtype == "float64" and not b.rounded
    assert (c.dtype, c.native, c.rounded) == ("float32", None, True)
    why = "the network's own code computes in float32 there or before"
    assert c.no_float64 == why
    said = f"Layer 'c' is constant on the training samples, and was not read in float64: {why}."
    assert said in report.notes
    with pytest.raises(LinprobeError, match=f"layer 'c' can't be read in float64: {why}; leave"):
        probed(Sunk(cast=True), extraction={"float64": True})


def test_data_that_are_rounded_before_the_network_say_so():
    (x, y), (xt, yt) = raw_data()
    train, test = ((1 + SIZE * part, labels) for part, labels in ((x, y), (xt, yt)))
    record = linprobe.probe(nn.Identity(), train, test, layers=":in", method=METHOD)[":in"].record
    assert record.rounded and record.native is None
    assert record.no_float64 == "its values are those of float32 already"


def test_what_drowns_even_in_float64_is_still_rounded():
    network = Sunk()
    with torch.no_grad():
        network.b.bias.fill_(1e9)
    report = probed(network)
    record = report["b"].record
    assert record.dtype == "float64" and record.native.rounded and record.rounded
    assert "Layer 'b' is constant on the training samples, in float64 too." in report.notes


def test_networks_of_16_bits_are_read_again_where_a_tenth_is_rounding():
    network = Sunk()
    with torch.no_grad():
        network.b.weight.mul_(1e5)  # varies by 1e-3
    for record in probed(network.bfloat16()).records[1:]:
        assert (record.dtype, record.native.dtype) == ("float64", "bfloat16")
        assert record.test_error_rate < record.native.test_error_rate - 0.1


def test_a_fit_in_float64_that_fails_leaves_the_own_probe(monkeypatch):
    def failing(layer, place, features, *others):
        if features.offset is not None:
            raise RuntimeError("a test's own")
        return fit_layer(layer, place, features, *others)

    monkeypatch.setattr(engine, "fit_layer", failing)
    record = probed(Sunk())["b"].record
    assert record.dtype == "float32" and record.converged and record.rounded
    assert record.no_float64 == "RuntimeError: a test's own"


def test_an_extraction_in_float64_that_fails_leaves_the_own_probe(monkeypatch):
    extract = Extractor.extract

    def failing(self, *args):
        if self.dtype is not None:
            raise LinprobeError("no memory is left")
        return extract(self, *args)

    monkeypatch.setattr(Extractor, "extract", failing)
    records = probed(Sunk()).records
    assert [record.no_float64 for record in records] == [None, *2 * ["no memory is left"]]
    with pytest.raises(LinprobeError, match="no memory is left"):
        probed(Sunk(), extraction={"strict": True})


def test_a_call_that_ends_early_goes_on_with_what_was_read_again(tmp_path, monkeypatch):
    calls = []

    def counted(layer, place, features, *others):
        calls.append((layer, features.offset is not None))
        if calls[-1] == ("c", True) and len(calls) < 6:
            raise KeyboardInterrupt
        return fit_layer(layer, place, features, *others)

    monkeypatch.setattr(engine, "fit_layer", counted)
    network, out = Sunk(), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        probed(network, out=out)
    assert calls == [("a", False), ("b", False), ("c", False), ("b", True), ("c", True)]
    first = probed(network, out=out)
    assert calls[5:] == [("c", False), ("c", True)]
    again = linprobe.load_report(out)
    assert again.records == first.records and again["b"].record.native.test_error_rate > 0.4
    with pytest.raises(LinprobeError, match="other settings"):
        probed(network, out=out, extraction={"float64": False})


def test_masks_tokens_and_layouts_are_as_before():
    words, mask, _ = sentences(90)
    labels = torch.arange(90) % 3

    class Shifted(Encoder):
        def forward(self, input_ids, attention_mask):
            out = super().forward(input_ids, attention_mask)
            return {name: 1 + 1e-9 * value for name, value in out.items()}

    part = {"input_ids": words, "attention_mask": mask, "labels": labels}
    network = Shifted().eval()
    record = linprobe.probe(network, part, part, layers=[""], method=METHOD)[""].record
    assert record.native is not None and record.reducer == record.native.reducer == "tokens=mean"
    assert record.test_error_rate < record.native.test_error_rate


def test_dense_layers_that_drown_even_in_float64_are_read_as_deviations():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(20, 20), nn.LeakyReLU(), nn.Linear(20, 20), nn.ReLU())
    with torch.no_grad():
        network[0].weight.copy_(1.1e-12 * torch.eye(20)), network[0].bias.fill_(1e6)
        network[2].weight.copy_(0.9 * torch.eye(20))
    report = linprobe.probe(network, *raw_data(), method=METHOD)
    for record in report.records:
        assert record.native.rounded and record.dtype == "float64" and not record.rounded
        assert record.test_error_rate == pytest.approx(0.08, abs=0.01)
