"""A new metric is one entry of one table, and shows everywhere."""

import csv

import pytest
import torch
from sklearn.metrics import matthews_corrcoef

import linprobe
from linprobe.evaluation import metrics
from linprobe.evaluation.metrics import METRICS, Metric
from linprobe.report.page import report_html

X = torch.randn(90, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(90) % 3


@pytest.fixture
def report(monkeypatch):
    share = Metric(
        name="first_share",
        label="share of class 0",
        about="Share of samples that are predicted to be of class 0.",
        in_table=True,
        compute=lambda scored: float((scored.predicted == 0).mean()),
    )
    monkeypatch.setattr(metrics, "METRICS", (*METRICS, share))
    return linprobe.fit_probes({"a": X}, Y, ({"a": X}, Y))


def test_one_entry_reaches_record_csv_table_frame_and_page(report, tmp_path):
    predicted = report["a"].predictions.predicted
    share = float((predicted == 0).double().mean())
    assert report["a"].record.evaluation.metrics["first_share"] == share
    report.save(tmp_path)
    with (tmp_path / "results.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["first_share"]) == share
    assert "share of class 0" in str(report) and f"{share:.4f}" in str(report)
    assert list(report.to_pandas()["first_share"]) == [share]
    assert "share of class 0" in report_html(report.run)
    again = linprobe.load_report(tmp_path)
    assert again.run.metrics == report.run.metrics


def test_matthews_correlation_is_that_of_the_predictions(report):
    predicted = report["a"].predictions.predicted
    expected = matthews_corrcoef(Y.numpy(), predicted.numpy())
    assert report["a"].record.evaluation.metrics["matthews"] == pytest.approx(expected)


def test_the_guide_lists_every_metric(request):
    guide = (request.config.rootpath / "docs" / "evidence.md").read_text()
    for metric in METRICS:
        assert f"| `{metric.name}` | {metric.label} | {metric.about} |" in guide
