"""What fails at one layer takes nothing away from the others."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import linprobe
from linprobe import LinprobeError
from linprobe.activations.extract import Extractor
from linprobe.evaluation.controls import Controls
from linprobe.pipeline import array_layers, network_layers
from linprobe.pipeline.controls import with_plan
from linprobe.probes.softmax import SoftmaxProbe
from linprobe.report.page import report_html
from tests.support.options import fit_options, grouped

X = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 2
X[:, 0] += 2 * Y
SPLITS = (X[:40], Y[:40]), (X[40:], Y[40:])
PATH = (1e-1, 1e-2)


class Late(nn.Module):
    """`wide` gives twice the features for batches of one size, and `rare` is not always reached."""

    def __init__(self, odd=8):
        super().__init__()
        self.first, self.wide, self.rare = nn.Linear(6, 5), nn.ReLU(), nn.Identity()
        self.last, self.odd = nn.Linear(5, 3), odd

    def forward(self, x):
        x = self.first(x)
        self.wide(x.repeat(1, 1 + (len(x) == self.odd)))
        if len(x) != self.odd:
            self.rare(x + 1)
        return self.last(x)


def probed(network, **options):
    torch.manual_seed(0)
    return linprobe.probe(network, *SPLITS, **grouped(**{"l2": PATH, "batch_size": 16, **options}))


def fitted(names="abc", **options):
    arrays = (dict.fromkeys(names, split[0]) for split in SPLITS)
    train, test = arrays
    strict = options.pop("strict", False)
    options = fit_options(**{"l2": PATH, **options})
    return linprobe.fit_probes(train, SPLITS[0][1], (test, SPLITS[1][1]), strict=strict, **options)


@pytest.fixture
def network():
    torch.manual_seed(1)
    return Late()


def test_a_layer_whose_shape_changes_late_leaves_the_others_as_they_are(network, tmp_path):
    report = probed(network, layers=["first", "wide", "rare", "last"])
    alone = probed(network, layers=["first", "last"])
    wide, rare = report["wide"].record, report["rare"].record
    assert wide.status == rare.status == "failed" and wide.standing == "failed"
    assert wide.reason.startswith("it gives 10 features, but 5 in the first batch")
    assert "did not reach 'rare' (never called)" in rare.reason
    for layer in alone:
        assert torch.equal(report[layer].weight, alone[layer].weight)
        assert report[layer].record.test_error_rate == alone[layer].record.test_error_rate
    assert [record.index for record in report.records] == [0, 1, 2, 3]
    assert "2 of 4 probes converged" in str(report)
    assert "Layer 'wide' has no probe: it gives 10 features" in str(report)
    assert "Layer &#x27;wide&#x27; has no probe" in report_html(report.run)
    steps = report.run.checkpoints[0].steps
    assert [(step.from_layer, step.to_layer) for step in steps] == [("first", "last")]
    again = linprobe.load_report(report.save(tmp_path))
    assert str(again) == str(report) and again["wide"].weight is None
    with pytest.raises(LinprobeError, match="'wide' has no probe"):
        again["wide"].linear()


@pytest.mark.parametrize("odd", [8, 4])  # in the training data, and in the test data alone
def test_it_does_not_matter_in_which_split(odd):
    report = probed(Late(odd), layers=["first", "wide"])
    assert [record.status for record in report.records] == ["converged", "failed"]


def test_strict_raises_at_once(network):
    with pytest.raises(LinprobeError, match="'wide' gives 10 features, but 5 in the first batch"):
        probed(network, layers=["first", "wide"], strict=True)
    with pytest.raises(LinprobeError, match="did not reach 'rare'"):
        probed(network, layers=["first", "rare"], strict=True)


def test_without_any_probe_there_is_an_error(network):
    with pytest.raises(LinprobeError, match=r"^layer 'wide': it gives 10 features"):
        probed(network, layers="wide")


class Mixture(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(6, 4)
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        top, out = self.gate(x).argmax(1), torch.zeros_like(x)
        for number in top.unique().tolist():
            out[top == number] = self.experts[number](x[top == number])
        return self.head(out)


@pytest.mark.parametrize("seed", range(4))
def test_experts_that_not_every_batch_reaches(seed):
    torch.manual_seed(seed)
    network = Mixture()
    report = probed(network)
    whole = probed(network, layers=["gate", "head"])
    for layer in whole:
        assert torch.equal(report[layer].weight, whole[layer].weight)
    for record in report.records:
        assert record.layer in whole or record.status == "failed"
    (note,) = [note for note in report.notes if note.startswith("Not reached")]
    named = note + " ".join(n for n in report.notes if n.startswith(("Left out", "Layer")))
    assert "experts" in named


class HeadNorms(nn.Module):
    """As Qwen3: the norm of each head is (samples, tokens, heads, features)."""

    def __init__(self):
        super().__init__()
        self.embed, self.q_norm, self.mix = nn.Embedding(9, 8), nn.LayerNorm(4), nn.Linear(8, 8)

    def forward(self, input_ids, attention_mask):
        x = self.embed(input_ids)
        return self.mix(self.q_norm(x.unflatten(2, (2, 4))).flatten(2))


def test_head_norms_over_batches_padded_to_different_lengths():
    def batch(length):
        ids = torch.randint(0, 9, (20, length))
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "labels": torch.arange(20) % 2,
        }

    torch.manual_seed(0)
    train = [batch(length) for length in (5, 7, 6)]
    report = linprobe.probe(HeadNorms(), train, [batch(5)], **grouped(l2=PATH))
    widths = {name: probe.record.num_features for name, probe in report.items()}
    assert widths == {"embed": 8, "q_norm": 8, "mix": 8}  # means over tokens, heads side by side
    assert all(record.converged for record in report.records)


def fail_on(monkeypatch, owner, name, error, calls):
    """Let some calls of a method fail, by their numbers from 0."""
    real, number = getattr(owner, name), iter(range(10**6))

    def called(*args, **options):
        if next(number) in calls:
            raise error
        return real(*args, **options)

    monkeypatch.setattr(owner, name, called)
    for module in (array_layers, network_layers):
        monkeypatch.setattr(module, "thread_count", lambda device: 1)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LinprobeError("no such luck"), "no such luck"),
        (MemoryError(), "no memory left to solve 6 features"),
        (RuntimeError("[enforce fail] can't allocate memory"), "no memory left"),
        (RuntimeError("svd did not converge"), "RuntimeError: svd did not converge"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_a_fit_that_fails(monkeypatch, error, reason):
    fail_on(monkeypatch, SoftmaxProbe, "fit", error, {1})
    report = fitted()
    assert [record.status for record in report.records] == ["converged", "failed", "converged"]
    assert report["b"].record.reason.startswith(reason)
    assert torch.equal(report["a"].weight, report["c"].weight)
    fail_on(monkeypatch, SoftmaxProbe, "fit", error, {1})
    with pytest.raises((LinprobeError, type(error))):
        fitted(strict=True)


def test_a_file_of_features_that_goes_away(monkeypatch):
    fail_on(monkeypatch, array_layers, "_copy", OSError(5, "Input/output error"), {2})
    report = fitted()
    assert [record.status for record in report.records] == ["converged", "failed", "converged"]
    assert report["b"].record.reason == "OSError: [Errno 5] Input/output error"


def test_memory_that_ends_at_one_layer_of_the_extraction(monkeypatch, network):
    error = LinprobeError("layer 'last': no memory for 6 KiB of features; set memory_bytes")
    fail_on(monkeypatch, Extractor, "_allocate", error, {1})
    report = probed(network, layers=["first", "last"])
    assert report["first"].record.converged
    assert report["last"].record.reason.startswith("no memory for 6 KiB of features")


def test_a_network_that_fails_at_a_later_group_of_layers(monkeypatch, network):
    size = 4 * 5 * len(X)
    fail_on(monkeypatch, Extractor, "extract", LinprobeError("the network fails: OOM"), {2})
    report = probed(network, layers=["first", "last"], memory_bytes=size)
    assert report["first"].record.converged
    assert report["last"].record.reason == "the network fails: OOM"
    fail_on(monkeypatch, Extractor, "extract", LinprobeError("the network fails: OOM"), {2})
    with pytest.raises(LinprobeError, match="the network fails"):
        probed(network, layers=["first", "last"], memory_bytes=size, strict=True)


def test_a_control_or_code_that_fails_leaves_the_probe(monkeypatch):
    options = {"controls": ["shuffled_labels"], "repeats": 2, "mdl": True}
    whole = fitted("ab", **options)
    real = Controls._control

    def control(self, name, layer, repeat, *args):
        if layer == "b" and repeat == 1:
            raise RuntimeError("no luck")
        return real(self, name, layer, repeat, *args)

    monkeypatch.setattr(Controls, "_control", control)
    fail_on(monkeypatch, linprobe.evaluation.plan, "online_codelength", MemoryError("no room"), {0})
    report = fitted("ab", **options)
    assert report["a"].record.missing == "no description length: no room"
    assert report["b"].record.missing == "no controls: no luck"
    assert report["a"].record.evaluation.mdl is None
    assert report["b"].record.evaluation.mdl == whole["b"].record.evaluation.mdl
    assert report["a"].controls == whole["a"].controls
    assert report["b"].controls == whole["b"].controls[:1]
    for layer in "ab":
        assert torch.equal(report[layer].weight, whole[layer].weight)
    assert "Layer 'b' has a probe but no controls: no luck." in report.notes
    with pytest.raises(RuntimeError, match="no luck"):
        fitted("b", strict=True, **options)


def test_controls_of_the_network_that_fail_leave_all_probes(monkeypatch, network):
    options = {"controls": ["input", "untrained", "majority"], "layers": ["first"]}
    task_of_controls = linprobe.pipeline.probe.with_plan

    def broken(task, inputs=None):
        return with_plan(task, (inputs[0] * float("nan"), inputs[1][:, :1]))

    monkeypatch.setattr(linprobe.pipeline.probe, "with_plan", task_of_controls)
    fail_on(monkeypatch, linprobe.pipeline.probe, "probe_layers", MemoryError("no room"), {1})
    report = probed(network, **options)
    assert report["first"].record.converged
    names = [control.name for control in report.run.checkpoints[0].controls]
    assert names == ["input", "majority"]
    assert "The control 'untrained' failed: MemoryError: no room." in report.notes
    fail_on(monkeypatch, linprobe.pipeline.controls, "fit_layer", MemoryError("no room"), {0})
    assert "The control 'input' failed: MemoryError: no room." in probed(network, **options).notes


def test_select_that_fails_for_one_layer(network):
    def select(name, value):
        if name == "last" and len(value) == 8:
            raise KeyError("hidden")
        return value

    report = probed(network, layers=["first", "last"], select=select)
    assert report["first"].record.converged
    assert report["last"].record.reason == "KeyError: 'hidden'"


def test_failed_layers_have_no_say_in_what_is_drawn(network):
    report = probed(network, layers=["first", "wide"])
    assert report.plot().axes
    frame = report.to_pandas()
    assert frame["reason"].notna().tolist() == [False, True]
    assert replace(report["wide"].record, seconds=0.0).test_error_rate != 0
