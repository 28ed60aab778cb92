"""Layers that are numbers, as in work on language models."""

import csv

import numpy as np
import pytest
import torch

import linprobe
from linprobe import EvaluationOptions, LinprobeError, ProbeConfig
from linprobe.records.table import write_table
from tests.support.cases import make_case

CASE = make_case("plain", 90, 6, 3)
X, Y = CASE.features.float(), CASE.labels


def fitted(*keys, test=None, **options):
    train, held = {key: X[:60] for key in keys}, {key: X[60:] for key in test or keys}
    return linprobe.fit_probes(train, Y[:60], (held, Y[60:]), method=ProbeConfig(1e-2), **options)


def test_numbers_are_names_everywhere(tmp_path):
    controls = EvaluationOptions(controls="shuffled_labels", repeats=1)
    report = fitted(0, np.int64(1), (2, "attn"), evaluation=controls)
    assert list(report) == ["0", "1", "2.attn"]
    assert report[0] is report["0"] and report[np.int32(1)] is report["1"]
    assert report[2, "attn"] is report["2.attn"] and 0 in report and 3 not in report
    assert report.get(3) is None and str(report).splitlines()[2].split()[0] == "0"
    loaded = linprobe.load_report(report.save(tmp_path / "run"))
    assert torch.equal(loaded[1].weight, report[1].weight)
    assert [control.layer for control in loaded[0].controls] == ["0"]
    write_table(report.run, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open() as file:
        assert [row["layer"] for row in csv.DictReader(file)] == ["0", "1", "2.attn"]
    with pytest.raises(KeyError, match="there is no layer '7'"):
        report[7]


def test_numbers_and_text_of_the_same_name():
    assert list(fitted(0, 1, test=("0", "1"))) == ["0", "1"]
    with pytest.raises(LinprobeError, match="two layers of the train features are called '0', '0'"):
        fitted(0, "0")
    with pytest.raises(LinprobeError, match="layer '2' stands in one split only"):
        fitted(0, 2, test=("0",))


def test_a_network_whose_layers_are_numbers():
    network = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    for layers in ([0, 2], range(0, 3, 2), np.array([0, 2])):
        report = linprobe.probe(
            network, (X[:60], Y[:60]), (X[60:], Y[60:]), layers=layers, method=ProbeConfig(1e-2)
        )
        assert list(report) == ["0", "2"]
    assert list(linprobe.probe(network, (X[:60], Y[:60]), (X[60:], Y[60:]), layers=1)) == ["1"]
