"""Layers of a network that exceed the memory are written to a scratch folder and streamed."""

import itertools
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from torch import nn

import linprobe
from linprobe import EvaluationOptions, ExtractionOptions, LinprobeError, ProbeConfig
from linprobe.core.features import DamagedRows, ScratchRows
from linprobe.evaluation import controls as evaluation_controls
from tests.support.faults import flip

Y = torch.arange(90) % 3
X = torch.randn(90, 6, generator=torch.Generator().manual_seed(0)) + 2 * torch.eye(6)[Y]
SPLITS = (X[:60], Y[:60]), (X[60:], Y[60:])
METHOD = ProbeConfig((1e-2,), exact=False)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 4))


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def probed(network, splits=SPLITS, **options):
    chosen = ExtractionOptions(batch_size=16, **options)
    return linprobe.probe(network, *splits, layers=["*"], method=METHOD, extraction=chosen)


@pytest.mark.parametrize("reduce", ["auto", "flatten", "random:30"])
def test_the_probes_are_those_of_layers_in_memory(network, scratch, reduce):
    whole = probed(network, reduce=reduce)
    small = probed(network, reduce=reduce, memory_bytes=6e3)  # layers take 14,400 and 1,440 bytes
    for layer in whole:
        one, two = whole[layer].record, small[layer].record
        assert two.converged and (one.reducer, one.dtype) == (two.reducer, two.dtype)
        assert two.test_error_rate == one.test_error_rate
        assert abs(two.objective - one.objective) < 1e-4
        torch.testing.assert_close(small[layer].weight, whole[layer].weight, rtol=0.1, atol=0.03)
    assert not list(scratch.iterdir())


def test_activations_in_16_bits_stay_so(network, scratch, monkeypatch):
    seen = []
    real = linprobe.activations.extract.ScratchRows.finished

    def finished(self):
        seen.append(real(self))
        return seen[-1]

    monkeypatch.setattr(linprobe.activations.extract.ScratchRows, "finished", finished)
    splits = [(x.bfloat16(), y) for x, y in SPLITS]
    report = probed(network.bfloat16(), splits, memory_bytes=6e3)
    assert {rows.dtype for rows in seen} == {torch.bfloat16} and report["0"].record.converged
    assert report["0"].record.dtype == "bfloat16"


def test_nothing_is_left_after_an_error(network, scratch):
    class Fails(nn.Module):
        def forward(self, x):
            if len(x) == 12:  # the last training batch
                raise RuntimeError("broken")
            return x

    with pytest.raises((RuntimeError, LinprobeError), match="broken"):
        probed(nn.Sequential(Fails(), *network), memory_bytes=50.0)
    assert not list(scratch.iterdir())


def test_a_disk_without_space_is_refused(network, scratch, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(100))
    with pytest.raises(LinprobeError, match=r"can't be written to .* expected space on that disk"):
        probed(network, memory_bytes=6e3)
    assert not list(scratch.iterdir())


def test_scratch_lies_beside_the_run(network, scratch, tmp_path, monkeypatch):
    places = []
    real = linprobe.pipeline.network_layers.check_space
    monkeypatch.setattr(
        linprobe.pipeline.network_layers,
        "check_space",
        lambda folder, size: (places.append(folder.parent), real(folder, size)),
    )
    options = ExtractionOptions(memory_bytes=6e3)
    out = tmp_path / "run"
    linprobe.probe(network, *SPLITS, layers=["0"], method=METHOD, extraction=options, out=out)
    assert set(places) == {tmp_path} and sorted(p.name for p in tmp_path.iterdir()) == [
        "run",
        "scratch",
    ]


@pytest.fixture
def flips(monkeypatch):
    """Flip a bit of some of the files that features are written to, when they are complete."""
    real, count = ScratchRows.finished, itertools.count()

    def arm(*which):
        def finished(self):
            rows = real(self)
            if next(count) in which:
                flip(Path(rows.path), 777)
            return rows

        monkeypatch.setattr(ScratchRows, "finished", finished)

    return arm


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("split", [0, 1])
def test_a_bit_that_flips_on_the_disk_is_found_and_the_layer_made_again(
    network, scratch, flips, caplog, split, strict
):
    whole = probed(network, memory_bytes=6e3)
    flips(split)
    report = probed(network, memory_bytes=6e3, strict=strict)
    assert "layer '0': " in caplog.text and "the layer is extracted again" in caplog.text
    for layer in whole:
        assert torch.equal(report[layer].weight, whole[layer].weight)
        assert report[layer].record.test_error_rate == whole[layer].record.test_error_rate
    assert report.notes == whole.notes and not list(scratch.iterdir())


def test_a_disk_that_flips_bits_again_and_again_fails_the_layer(network, scratch, flips):
    flips(*range(99))
    report = probed(network, memory_bytes=6e3)
    failed = [probe.record for probe in report.values() if probe.record.status == "failed"]
    assert failed and all("are not what was written there" in record.reason for record in failed)
    assert any(probe.record.converged for probe in report.values())
    with pytest.raises(LinprobeError, match="not what was written there"):
        probed(network, memory_bytes=6e3, strict=True)


def test_a_bit_that_flips_while_controls_are_computed(network, scratch, monkeypatch, caplog):
    """The probe is there by then, and is made again with them."""
    real, calls = evaluation_controls.Controls.of_layer, []

    def of_layer(self, *args):
        calls.append(None)
        if len(calls) == 1:
            raise DamagedRows("rows are not what was written")
        return real(self, *args)

    monkeypatch.setattr(evaluation_controls.Controls, "of_layer", of_layer)
    options = {"evaluation": EvaluationOptions(controls=("shuffled_labels",), repeats=1)}
    report = linprobe.probe(network, *SPLITS, layers=["2"], method=METHOD, **options)
    assert report["2"].record.missing is None and len(report["2"].controls) == 1
    assert len(calls) == 2 and "extracted again" in caplog.text
