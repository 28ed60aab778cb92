"""The report: a table, a mapping, a frame, a figure and a folder."""

import dataclasses
import json

import pandas
import pytest
import torch
from safetensors.torch import load_file

import linprobe
from linprobe import LinprobeError
from linprobe.records.predictions import load_predictions
from linprobe.records.store import load_run
from linprobe.runtime.lock import folder_lock
from tests.support.cases import make_case
from tests.support.options import grouped

CASE = make_case("plain", 200, 8, 3)
X, Y = CASE.features.float(), CASE.labels


@pytest.fixture(scope="module")
def report():
    train, test = ({"first": x, "second [x]": x[:, :4]} for x in (X[:150], X[150:]))
    return linprobe.fit_probes(train, Y[:150], (test, Y[150:]), **grouped(l2=(1e-1, 1e-2)))


def test_table_holds_every_layer(report):
    lines = str(report).splitlines()
    assert lines[0].split()[:4] == ["layer", "features", "l2", "train"]
    assert lines[2].split()[:2] == ["first", "8"] and "second [x]" in lines[3]
    assert f"{report['first'].record.test_error_rate:.4f}" in lines[2]
    assert lines[4] == "2 of 2 probes converged (duality gap at most 1e-04 nats)."
    assert repr(report) == str(report)


def test_the_edge_of_the_path_is_said(report):
    x = torch.eye(3)[Y] + 0.1 * X[:, :3]
    train, test = ({"first": part, "second": part} for part in (x[:150], x[150:]))
    ended = linprobe.fit_probes(train, Y[:150], (test, Y[150:]), **grouped(l2=(1.0, 0.5)))
    assert ended["first"].record.l2_at_edge and not report["first"].record.l2_at_edge
    said = "2 of 2 probes (first, second): the l2 path ended while the held-out cross-entropy still"
    assert said in str(ended) and "Leave l2 out" in str(ended) and "path" not in str(report)


def test_it_is_a_mapping(report):
    assert list(report) == ["first", "second [x]"] and len(report) == 2
    assert "first" in report and "third" not in report
    assert [probe.record.layer for probe in report.values()] == list(report)
    assert report.get("third") is None
    with pytest.raises(LinprobeError, match=r"^there is no layer 'frist'; near names: 'first'$"):
        _ = report["frist"]
    with pytest.raises(KeyError):
        _ = report["frist"]


def test_linear_takes_features_and_no_random_numbers(report):
    state = torch.random.get_rng_state()
    probe = report["first"]
    linear = probe.linear()
    assert torch.equal(state, torch.random.get_rng_state())
    assert type(linear) is torch.nn.Linear and linear.weight.dtype is torch.float32
    expected = X.double() @ probe.weight.T + probe.bias
    torch.testing.assert_close(linear(X).double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(probe.linear(torch.float64)(X.double()), expected)


def test_features_of_another_shape_are_refused(report):
    with pytest.raises(LinprobeError, match=r"layer 'first': an activation of shape \(2, 3, 3\)"):
        report["first"].features(torch.zeros(2, 3, 3))


def test_frame_has_a_row_a_layer(report):
    frame = report.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["layer"]) == list(report)
    assert list(frame["test_error_rate"]) == [r.test_error_rate for r in report.records]
    assert "evaluation" not in frame.columns


def test_frame_without_pandas_says_what_to_install(report, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(LinprobeError, match="pip install pandas"):
        report.to_pandas()


def test_figure_shows_each_layer(report):
    figure = report.plot()
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == list(report)
    assert "probes" in axes.get_title()


def test_folder_is_a_run(report, tmp_path):
    assert report.save(tmp_path / "run") == tmp_path / "run"
    run = load_run(tmp_path / "run")
    assert run.experiment == "probe" and run.complete and not run.quick
    assert [probe.layer for probe in run.checkpoints[0].probes] == list(report)
    tensors = load_file(tmp_path / "run/probes/network.safetensors")
    assert torch.equal(tensors["first.weight"], report["first"].weight)
    labels, predictions = load_predictions(tmp_path / "run", "network")
    assert torch.equal(labels, Y[150:])
    rate = float((predictions["first"].predicted != labels).double().mean())
    assert rate == pytest.approx(report["first"].record.test_error_rate)
    assert (tmp_path / "run/results.csv").read_text().count("\n") == 3


def test_folder_is_replaced_when_asked(report, tmp_path):
    report.save(tmp_path)
    with pytest.raises(LinprobeError, match="already holds a run"):
        report.save(tmp_path)
    report.save(tmp_path, overwrite=True)
    assert str(linprobe.load_report(tmp_path)) == str(report)


def test_damaged_folders_say_what_is_wrong(report, tmp_path):
    with pytest.raises(LinprobeError, match=r"results.json can't be read"):
        linprobe.load_report(tmp_path)
    report.save(tmp_path)
    path = tmp_path / "probes/network.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(LinprobeError, match=r"network.safetensors is damaged"):
        linprobe.load_report(tmp_path)
    path.unlink()
    with pytest.raises(LinprobeError, match=r"network.safetensors can't be read"):
        linprobe.load_report(tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    content["experiment"] = "fig5"
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(LinprobeError, match="holds a run of 'fig5' with 1 checkpoints"):
        linprobe.load_report(tmp_path)


def test_a_probe_that_the_tensors_lack(report, tmp_path):
    extra = dataclasses.replace(report["first"], record=dataclasses.replace(
        report["first"].record, layer="third"))  # fmt: skip
    run = report.run
    checkpoint = run.checkpoints[0]
    more = dataclasses.replace(checkpoint, probes=(*checkpoint.probes, extra.record))
    linprobe.ProbeReport(dataclasses.replace(run, checkpoints=(more,)), report.probes).save(
        tmp_path
    )
    with pytest.raises(LinprobeError, match=r"has no 'third.weight'"):
        linprobe.load_report(tmp_path)


def test_a_folder_that_another_process_writes_to_is_left_alone(report, tmp_path):
    report.save(tmp_path / "run")
    before = (tmp_path / "run" / "results.json").read_bytes()
    with folder_lock(tmp_path / "run"), pytest.raises(LinprobeError, match="another process is"):
        report.save(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "results.json").read_bytes() == before
