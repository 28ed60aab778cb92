"""A metric that is chosen is what tables, figures and page show."""

import math

import pytest
import torch

import linprobe
from linprobe.cli import main as cli
from linprobe.report.building import build_chart
from linprobe.report.measures import chosen, table_columns
from linprobe.report.notebook import run_html
from linprobe.report.payload import payload
from linprobe.report.plots import draw_run
from linprobe.runtime.errors import LinprobeError

LAYERS = ("random", "good")


def probed(share):
    """A layer of noise and one that tells rare class 1, neither of which ever answers it."""
    draws = torch.Generator().manual_seed(0)
    splits = []
    for n in (1200, 800):
        y = (torch.arange(n) % 100 < 100 * share).long()
        noise, x = torch.randn(2, n, 3, generator=draws)
        x[:, 0] += 1.5 * y
        splits.append(({"random": noise, "good": x}, y))
    (train, y), test = splits
    return linprobe.fit_probes(train, y, test, method=linprobe.ProbeConfig(l2_path=(0.1,)))


@pytest.fixture(scope="module")
def rare():
    return probed(0.02)


@pytest.fixture(scope="module")
def folder(rare, tmp_path_factory):
    return rare.save(tmp_path_factory.mktemp("run"), metric="auroc")


def values(report, name):
    return [report[layer].record.metric(name) for layer in LAYERS]


def test_imbalance_shows_by_itself(rare):
    assert [f"{record.test_error_rate:.4f}" for record in rare.records] == ["0.0200"] * 2
    head = str(rare).splitlines()[0]
    for label in ("balanced error", "AUROC", "average precision"):
        assert label in head
    assert "mean-per-class" not in head
    for name in ("auroc", "average_precision"):
        random, good = values(rare, name)
        assert f"{random:.4f}" in str(rare) and f"{good:.4f}" in str(rare)
        assert good > random + 0.05
    assert "AUROC" in run_html(rare.run)
    balanced = probed(0.5)
    assert "AUROC" not in str(balanced) and "AUROC" not in run_html(balanced.run)
    assert "AUROC" not in rare.table("error_rate").splitlines()[0]


def test_the_chosen_metric_has_a_column_its_interval_and_its_steps(rare):
    text = rare.table("auroc")
    low, high = rare["good"].record.metric_interval("auroc")
    assert f"{low:.4f}-{high:.4f}" in text
    assert "average precision" not in text.splitlines()[0]
    assert "the AUROC has 0 significant drops, 1 significant rise (at good)" in text
    assert "DeLong's paired test" in text
    assert "paired bootstrap" in rare.table("average_precision")
    (name, value), (_, interval) = table_columns(rare.run, "auroc")
    record = rare["good"].record
    assert (name, value(record), interval(record)) == (
        "AUROC",
        f"{record.metric('auroc'):.4f}",
        f"{low:.4f}-{high:.4f}",
    )


def test_a_frame_of_one_metric(rare):
    pytest.importorskip("pandas")
    frame = rare.to_pandas("auroc")
    assert list(frame["value"]) == values(rare, "auroc")
    step = rare.run.checkpoints[0].metric_steps[1]
    assert (step.metric, step.to_layer) == ("auroc", "good")
    assert list(frame["p_holm"])[1] == step.p_holm and list(frame["verdict"])[1] == "rises"
    assert (frame["low"] < frame["value"]).all() and (frame["value"] < frame["high"]).all()
    errors = rare.to_pandas("error_rate")
    assert list(errors["value"]) == [record.test_error_rate for record in rare.records]


def test_figure_draws_the_metric_with_intervals_and_baseline(rare):
    axes = draw_run(rare.run, metric="auroc").axes[0]
    assert axes.get_ylabel() == "AUROC" and axes.get_yscale() == "linear"
    chart = build_chart(rare.run, rare.run.checkpoints[0], chosen(rare.run, "auroc"))
    (probes,) = chart.of("probes")
    assert [point.value for point in probes.points] == values(rare, "auroc")
    ends = rare["good"].record.metric_interval("auroc")
    assert (probes.points[1].low, probes.points[1].high) == ends
    (baseline,) = chart.of("reference")
    assert (baseline.look.label, baseline.value) == ("majority-class baseline", 0.5)
    (solid,) = chart.of("curve")
    assert solid.look.label == ""  # the rise was found
    matthews = rare.plot("matthews").axes[0]
    assert matthews.get_ylim()[0] <= 0 < matthews.get_ylim()[1]


def test_page_begins_with_the_metric_and_the_best_layer_by_it(rare):
    found = payload(rare.run, "auroc")
    labels = [measure["label"] for measure in found["measures"]]
    assert labels[found["first"]] == "AUROC"
    assert found["layers"][found["best"]] == "good"
    checkpoint = found["checkpoints"][0]
    assert "1 significant rise (at good)" in checkpoint["steps"][found["first"]]
    verdict, sentence = checkpoint["probes"][1]["steps"][str(found["first"])]
    assert verdict == "rises" and "p = " in sentence
    assert "\N{EN DASH}" in checkpoint["probes"][1]["values"][found["first"]][1]
    assert payload(rare.run)["first"] == 0


def test_constant_probes_are_said_to_be_so(rare, folder):
    assert [record.evaluation.answers_only for record in rare.records] == [0, 0]
    assert str(rare).count("converged, one class") == 2
    sentence = "2 probes (random, good) answer one class for every test sample"
    assert sentence in str(rare)
    assert sentence in (folder / "report.html").read_text()
    assert all(record.evaluation.answers_only is None for record in probed(0.5).records)


def test_the_command_line_shows_it(folder, capsys):
    assert cli.main(["show", str(folder), "--metric", "auroc"]) == 0
    out = capsys.readouterr().out
    assert "AUROC, network" in out and "DeLong's paired test" in out
    assert cli.main(["plot", str(folder), "--metric", "average_precision"]) == 0
    assert cli.main(["report", str(folder), "--metric", "balanced_error_rate"]) == 0
    assert "Lowest balanced error: " in (folder / "report.html").read_text()
    capsys.readouterr()
    for command in ("show", "plot", "report"):
        assert cli.main([command, str(folder), "--metric", "roc"]) != 0
        error = capsys.readouterr().err
        assert "no metric 'roc'; it has: error_rate, balanced_error_rate, auroc" in error
        assert "Traceback" not in error


def test_a_metric_that_there_is_not_is_refused(rare, tmp_path):
    for call in (rare.table, rare.to_pandas, rare.plot):
        with pytest.raises(LinprobeError, match="the run has no metric 'roc'; it has: error_rate"):
            call("roc")
    with pytest.raises(LinprobeError, match="no metric 'roc'"):
        rare.save(tmp_path / "new", metric="roc")
    assert not (tmp_path / "new").exists()
    assert cli.main(["probe", "x:y", "--data", "npz:none.npz", "--metric", "roc"]) != 0


def test_a_test_set_of_one_class_is_printed_and_drawn(tmp_path):
    x, y = torch.randn(80, 3, generator=torch.Generator().manual_seed(0)), torch.arange(80) % 2
    report = linprobe.fit_probes({"a": x, "b": -x}, y, ({"a": x[::2], "b": x[::2]}, y[::2]))
    assert "All test samples are of class 0: AUROC" in str(report)
    assert all(math.isnan(record.metric("auroc")) for record in report.records)
    assert "none" in report.table("auroc")
    report.plot("auroc")
    report.save(tmp_path, metric="auroc")
    assert math.isnan(linprobe.load_report(tmp_path)["a"].record.metric("auroc"))
