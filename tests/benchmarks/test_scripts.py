"""The scripts beside the benchmarks: precision and scales."""

import torch

from benchmarks import exactness, few_rows, label_sets, penalties, precision, scales
from linprobe.data import ImageDataset
from linprobe.experiments.networks import DeepMLP
from linprobe.experiments.samples import Samples
from linprobe.probes.base import Targets
from linprobe.probes.config import ProbeConfig
from linprobe.runtime.randomness import generator
from tests.support.tiny import tiny_dataset


def splits_of(shift, noise=0.0):
    """Two classes along the first of three features, far from the origin."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 3, generator=generator, dtype=torch.float64)
    labels = (x[:, 0] > 0).long()
    x = x + shift + noise * torch.randn(300, 3, generator=generator)
    return precision.Splits.of(x[:200].clone(), x[200:]), labels[:200], labels[200:]


def test_equal_activations_have_equal_probes_and_noisy_ones_don_t():
    clean, labels, test_labels = splits_of(5.0)
    noisy, *_ = splits_of(5.0, noise=1.0)
    path = (1e-1, 1e-3)
    same = list(precision.differences(clean, clean, labels, test_labels, path))
    assert [one.l2 for one in same] == list(path)
    assert all(one.disagree == 0 and one.gap64 <= 1e-4 for one in same)
    assert all(one.error32 == one.error64 < 0.1 for one in same)
    other = list(precision.differences(noisy, clean, labels, test_labels, path))
    assert all(one.gap64 > 1e-3 and one.disagree > 0.05 for one in other)
    assert all(one.error32 > one.error64 for one in other)


def test_rounding_is_that_of_float32_over_what_varies():
    wide = torch.tensor([[1e4], [1e4 + 4e-4], [1e4 + 8e-4]], dtype=torch.float64)
    assert 0.1 < precision.rounding(wide.float(), wide) < 10
    assert precision.rounding((wide - 1e4).float(), wide - 1e4) < 1e-7


def test_activations_are_of_a_pass_in_that_precision_and_leave_the_network():
    network, images = DeepMLP(4, generator(0, "network")), tiny_dataset().test_images
    double = precision.activations(network, images, torch.float64, ["layer4"])["layer4"]
    single = precision.activations(network, images, torch.float32, ["layer4"])["layer4"]
    assert (double.dtype, single.dtype) == (torch.float64, torch.float32)
    assert 0 < float((single - double).abs().max()) < 1e-5
    assert next(network.parameters()).dtype == torch.float32


def test_the_precision_table(monkeypatch, capsys):
    data: ImageDataset = tiny_dataset()
    monkeypatch.setattr(precision, "load", lambda _: data)
    monkeypatch.setattr(precision, "DEPTH", 4)
    monkeypatch.setattr(precision, "LAYERS", (1, 4))
    monkeypatch.setattr(precision, "DEFAULT_L2_PATH", (1e-1, 1e-2))
    precision.main(["--rows", "100", "--threads", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 2 * 2
    assert lines[2].startswith("| layer1 | ") and " | 1e-01 | " in lines[2]


def test_the_table_of_probes_shows_what_rounding_costs_them(monkeypatch, capsys):
    monkeypatch.setattr(precision, "load", lambda _: tiny_dataset())
    monkeypatch.setattr(precision, "DEPTH", 4)
    words = ["--probes", "--layers", "2,4", "--minibatches", "3", "--threads", "1"]
    precision.main(words)
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert [row[0] for row in rows] == ["layer", "---", "layer2", "layer4"]
    for row in rows[2:]:
        assert len(row) == 13 and row[3] == "no" and row[4] == row[5]
        assert 0 < float(row[2]) < 1e-8 and float(row[10]) <= 0.02


def test_each_scale_is_shown_at_each_ratio(monkeypatch, capsys):
    monkeypatch.setattr(scales, "_RATIOS", (1e4,))
    monkeypatch.setattr(scales, "_ROWS", 600)
    scales.sweep()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[2:4] for row in rows] == 2 * [
        ["layer", "layer"], ["feature", "feature"], ["auto", "feature"]
    ]  # fmt: skip
    assert all(float(row[4]) < 0.25 for row in rows) and rows[1][4] == rows[2][4]
    assert float(rows[0][6]) < 1e-4 * float(rows[1][6]), "one scale needs a smaller penalty"


def test_penalties_by_the_fixed_path_and_by_one_that_goes_on(monkeypatch, capsys):
    monkeypatch.setattr(penalties, "load", lambda _: tiny_dataset())
    usual = penalties.path.NUM_ERRORS
    penalties.main(["--layers", "layer1,layer3", "--errors", "1,2", "--path", "--float64"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| layer")]
    assert [line.split(" | ")[1] for line in lines[1:4]] == [
        "fixed", "1 standard errors", "2 standard errors"
    ]  # fmt: skip
    assert len(lines) == 1 + 2 * 3 and penalties.path.NUM_ERRORS == usual


def test_the_exactness_table(monkeypatch, capsys):
    data = tiny_dataset()
    samples = Samples(data, data.train_images, Targets(data.train_labels, 10, 20))
    monkeypatch.setattr(exactness, "load_samples", lambda _: samples)
    monkeypatch.setattr(exactness, "ProbeConfig", lambda exact: ProbeConfig(1e-4, exact=exact))
    exactness.main(["--layers", "layer2,logits", "--depth", "2", "--minibatches", "1"])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:3] for row in rows] == [["layer2", "128", "1e-04"], ["logits", "10", "1e-04"]]
    assert all(int(row[3]) <= int(row[4]) and int(row[8]) > int(row[9]) == 0 for row in rows)


def test_few_rows_are_compared_on_the_same_problem(capsys):
    few_rows.main(["--rows", "60", "--features", "200", "--strengths", "0.5"])
    head, _, line = capsys.readouterr().out.splitlines()
    cells = dict(zip(head.split(" | "), line.split(" | "), strict=True))
    assert float(cells["its gap"]) < 0.1
    error, theirs = float(cells["test error"]), float(line.split(" | ")[-1].strip(" |"))
    assert abs(error - theirs) < 0.2
    assert abs(float(cells["test error by it"]) - theirs) < 0.2


def test_label_sets_are_compared_by_their_number(capsys):
    label_sets.main(["--rows", "60", "--features", "200", "--sets", "1,2"])
    head, _, *lines = capsys.readouterr().out.splitlines()
    one, two = (dict(zip(head.split(" | "), line.split(" | "), strict=True)) for line in lines)
    assert one["times one"] == "1.0" and two["exact to the last sample"] == "2 of 2"
