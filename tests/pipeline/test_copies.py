"""A test set that holds training samples is noted, once, by the cheapest look."""

import torch
from torch.utils.data import TensorDataset

import linprobe
from linprobe import ExtractionOptions, ProbeConfig
from tests.support.cases import make_case

CASE = make_case("plain", 120, 6, 3)
X, Y = CASE.features.float(), CASE.labels
METHOD = ProbeConfig(1e-2)
NETWORK = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU())
NOTE = "10 of 50 test samples have the same {} as training samples: for them the test error is not "


def test_inputs_of_a_network():
    def notes(train, test):
        options = {"method": METHOD, "extraction": ExtractionOptions(batch_size=16)}
        return linprobe.probe(NETWORK, train, test, **options).notes

    train = X[:80], Y[:80]
    for test in ((X[70:], Y[70:]), TensorDataset(X[70:], Y[70:])):
        (note,) = notes(train, test)
        assert note.startswith(NOTE.format("inputs"))
    assert notes(train, (X[80:], Y[80:])) == ()


def test_features_of_the_first_layer_that_tells_samples_apart():
    layers = {"flat": torch.ones(120, 2), "bits": (X > 0).float()[:, :3], "deep": X}
    train = {name: x[:80] for name, x in layers.items()}

    def notes(start):
        test = {name: x[start:] for name, x in layers.items()}
        return linprobe.fit_probes(train, Y[:80], (test, Y[start:]), method=METHOD).notes

    assert any(note.startswith(NOTE.format("features of layer 'deep'")) for note in notes(70))
    assert not any("the same" in note for note in notes(80))


def test_sequences_are_samples_under_all_tokens():
    tokens, labels = X.view(40, 3, 6), Y.view(40, 3)
    report = linprobe.probe(
        *(NETWORK, (tokens[:30], labels[:30]), (tokens[28:], labels[28:])),
        method=METHOD,
        extraction=ExtractionOptions(tokens="all"),
    )
    assert any(
        note.startswith("2 of 12 test samples have the same inputs") for note in report.notes
    )
