"""Labels of any kind give the probes that class numbers give, and keep their names."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from torch.utils.data import DataLoader

import linprobe
from linprobe import EvaluationOptions, ProbeConfig
from linprobe.data.specs import read_data
from linprobe.report.payload import payload
from tests.support.cases import make_case

CASE = make_case("plain", 90, 6, 3)
X = CASE.features.float()
TRAIN, TEST = slice(0, 60), slice(60, 90)
NAMES = ("ant", "bee", "cat")
METHOD = ProbeConfig(1e-2)
MDL = EvaluationOptions(mdl=True)


def fitted(labels, **options):
    x, y = {"a": X[TRAIN]}, labels[TRAIN]
    options = {"method": METHOD, **options}
    return linprobe.fit_probes(x, y, ({"a": X[TEST]}, labels[TEST]), **options)


def evaluated(report):
    return report["a"].record.evaluation


def test_labels_from_one_on_are_two_classes():
    labels = (CASE.labels == 0).long()
    plain, moved = fitted(labels, evaluation=MDL), fitted(labels + 1, evaluation=MDL)
    assert evaluated(plain).metrics["auroc"] is not None
    assert evaluated(moved) == evaluated(plain)
    assert torch.equal(moved["a"].weight, plain["a"].weight)
    assert moved["a"].classes == moved.run.dataset.classes == ("1", "2")
    assert plain["a"].classes == ("0", "1") and plain.run.dataset.classes is None
    assert moved.notes == plain.notes == ()


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (np.array(NAMES), NAMES),
        (np.array(NAMES, "S"), NAMES),
        (np.array(NAMES, object), NAMES),
        (np.array([-5, 2, 40], np.int8), ("-5", "2", "40")),
        (np.array([1.0, 2.0, 5.0]), ("1", "2", "5")),
    ],
)
def test_classes_of_any_kind(values, names):
    plain, named = fitted(CASE.labels), fitted(values[CASE.labels.numpy()])
    assert named["a"].classes == named.run.dataset.classes == names
    assert torch.equal(named["a"].weight, plain["a"].weight)
    assert evaluated(named) == evaluated(plain)


def test_a_column_of_a_frame():
    frame = pd.DataFrame({"kind": np.array(NAMES)[CASE.labels.numpy()]}, dtype="category")
    named = fitted(frame["kind"])
    assert named["a"].classes == NAMES
    assert torch.equal(named.test_labels, CASE.labels[TEST])


def test_a_label_of_the_test_samples_only_is_said_by_its_name():
    labels = np.array(NAMES)[CASE.labels.numpy()]
    labels[60:62] = "dog"
    report = fitted(labels)
    assert report["a"].classes == (*NAMES, "dog")
    assert report.notes[0].startswith("No training sample has label dog: 2 test samples with it")


def test_names_survive_a_folder_and_stand_on_the_page(tmp_path):
    report = fitted(np.array(NAMES)[CASE.labels.numpy()])
    loaded = linprobe.load_report(report.save(tmp_path / "run"))
    assert loaded["a"].classes == NAMES == loaded.run.dataset.classes
    with safe_open(tmp_path / "run" / "predictions" / "network.safetensors", "pt") as file:
        assert json.loads(file.metadata()["classes"]) == list(NAMES)
    assert "ant" in (tmp_path / "run" / "report.html").read_text()
    assert tuple(payload(loaded.run)["classes"]) == NAMES
    numbered = linprobe.load_report(fitted(CASE.labels).save(tmp_path / "numbers"))
    assert numbered["a"].classes == ("0", "1", "2")


@pytest.mark.parametrize("kind", ["arrays", "dict", "list of text", "loader", "batches"])
def test_a_network_on_labels_of_text(kind):
    network = torch.nn.Sequential(torch.nn.Linear(6, 5))
    texts = np.array(NAMES)[CASE.labels.numpy()]

    def data(rows):
        x, y = X[rows], texts[rows]
        if kind == "loader":
            return DataLoader(list(zip(x, y.tolist(), strict=True)), 20, shuffle=True)
        if kind == "batches":
            return [(x[i : i + 25], tuple(y[i : i + 25].tolist())) for i in range(0, len(x), 25)]
        y = y.tolist() if kind == "list of text" else y
        return {"input": x, "labels": y} if kind == "dict" else (x, y)

    named = linprobe.probe(network, data(TRAIN), data(TEST), method=METHOD)
    plain = linprobe.probe(
        *(network, (X[TRAIN], CASE.labels[TRAIN]), (X[TEST], CASE.labels[TEST])), method=METHOD
    )
    assert named["0"].classes == NAMES
    torch.testing.assert_close(named["0"].weight, plain["0"].weight, rtol=1e-4, atol=1e-5)
    assert named["0"].record.evaluation.confusion == plain["0"].record.evaluation.confusion


@pytest.mark.parametrize("pictures", [False, True])
def test_a_file_of_arrays_with_text(tmp_path, pictures):
    x = (10 * X + 100).byte().view(90, 2, 3).numpy() if pictures else X.numpy()
    texts = np.array(NAMES)[CASE.labels.numpy()]
    arrays = {
        "x_train": x[TRAIN],
        "y_train": texts[TRAIN],
        "x_test": x[TEST],
        "y_test": texts[TEST],
    }
    np.savez(tmp_path / "data.npz", **arrays)
    data = read_data(f"npz:{tmp_path / 'data.npz'}")
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 5))
    report = linprobe.probe(network, data.train, data.test, layers="1", method=METHOD)
    assert report["1"].classes == NAMES and report["1"].record.test_error_rate < 0.5


def test_text_of_tokens_has_no_class_for_minus_100():
    tokens = X.view(30, 3, 6)
    labels = np.array(NAMES, object)[CASE.labels.numpy()].reshape(30, 3)
    labels[:, 2] = -100
    network = torch.nn.Sequential(torch.nn.Linear(6, 5))
    report = linprobe.probe(
        *(network, (tokens[:20], labels[:20]), (tokens[20:], labels[20:])),
        method=METHOD,
        extraction=linprobe.ExtractionOptions(tokens="all"),
    )
    assert report["0"].classes == NAMES and report.run.dataset.num_test == 20
