"""`linprobe.probe` and `linprobe.fit_probes` on networks and data that are not ours."""

import threading

import pytest
import torch
from torch import nn

import linprobe
from linprobe import LinprobeError
from linprobe.pipeline import label_sets
from tests.support.nets import Encoder, ResNet, images, sentences
from tests.support.options import grouped

PATH = (1e-1, 1e-2, 1e-3)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ResNet()


def probed(network, train, test, **options):
    return linprobe.probe(network, train, test, **grouped(**{"l2": PATH, **options}))


def test_probes_of_a_network_are_those_of_its_features(network):
    train, test = images(60), images(40, seed=1)
    report = probed(network, train, test, layers=["layer1", "fc"])
    features = [linprobe.Taps(network, ["layer1", "fc"])(x) for x, _ in (train, test)]
    flat, flat_test = ({k: v.flatten(1) for k, v in f.items()} for f in features)
    arrays = linprobe.fit_probes(flat, train[1], (flat_test, test[1]), **grouped(l2=PATH))
    assert list(report) == ["layer1", "fc"] == list(arrays)
    for layer in report:
        assert report[layer].record.converged
        torch.testing.assert_close(report[layer].weight, arrays[layer].weight)
        logits = report[layer].linear()(flat_test[layer])
        rate = float((logits.argmax(1) != test[1]).float().mean())
        assert rate == pytest.approx(report[layer].record.test_error_rate)


def test_report_survives_a_folder(network, tmp_path):
    report = probed(network, images(60), images(40, seed=1), layers="**", reduce="random:20")
    report.save(tmp_path)
    again = linprobe.load_report(tmp_path)
    assert str(again) == str(report)
    assert again.run.checkpoints[0].probes == report.run.checkpoints[0].probes
    assert again.run.checkpoints[0].steps == report.run.checkpoints[0].steps
    x = torch.randn(2, *linprobe.layers(network, images(2)[0])["layer1"].shape[1:])
    for layer in report:
        assert torch.equal(again[layer].weight, report[layer].weight)
        assert torch.equal(again[layer].predictions.predicted, report[layer].predictions.predicted)
    assert torch.equal(again["layer1"].features(x), report["layer1"].features(x))
    with pytest.raises(linprobe.LinprobeError, match="already holds a run"):
        report.save(tmp_path)


def test_network_is_left_as_it_was(network):
    network.train()
    network.fc.eval()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    before = torch.random.get_rng_state()
    probed(network, images(30), images(30, seed=1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert network.layer1.training and not network.fc.training
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_a_linear_network_is_a_layer():
    report = probed(nn.Linear(64, 5), *[(x.flatten(1), y) for x, y in (images(30), images(9))])
    assert list(report) == [""] and report[""].record.num_features == 5
    assert "(output)" in str(report)


class Words(torch.utils.data.Dataset):
    """Sentences as a tokenizer gives them, each with its label."""

    def __init__(self, count, seed):
        self.words, self.mask, _ = sentences(count, seed)

    def __len__(self):
        return len(self.words)

    def __getitem__(self, i):
        return {
            "input_ids": self.words[i],
            "attention_mask": self.mask[i],
            "labels": int(self.words[i, 0]) % 3,
        }


class Jitter(torch.utils.data.Dataset):
    """Samples that a random augmentation changes each time they are read."""

    def __init__(self, count, seed):
        self.x, self.y = images(count, seed)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i] + torch.rand(()), self.y[i]


def weights(report):
    return [probe.weight for probe in report.values()]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))


def test_shuffling_loaders_data_sets_and_arrays_give_the_same_probes(network):
    train, test = images(60), images(40, seed=1)
    plain = probed(network, train, test, layers=["layer2", "fc"], batch_size=16)
    sets = [torch.utils.data.TensorDataset(*split) for split in (train, test)]
    shuffled = [torch.utils.data.DataLoader(s, 16, shuffle=True, drop_last=True) for s in sets]
    for other in (sets, shuffled, [tuple(t.numpy() for t in split) for split in (train, test)]):
        again = probed(network, *other, layers=["layer2", "fc"], batch_size=16)
        assert same(plain, again)
        assert torch.equal(again.test_labels, test[1])


def test_random_augmentation_is_the_same_in_every_reading(network):
    data = Jitter(60, 0), Jitter(40, 1)
    layers = ["layer1", "layer2"]
    at_once = probed(network, *data, layers=layers)
    # A budget for one layer at a time: the data is read twice.
    apart = probed(network, *data, layers=layers, memory_bytes=4 * 100 * 256)
    assert same(at_once, apart)
    assert not same(at_once, probed(network, *data, layers=layers, seed=1))


def test_dict_batches_with_masks_and_a_forward_hook():
    torch.manual_seed(0)
    network, data = Encoder(), (Words(40, 0), Words(30, 1))
    report = probed(network, *data, layers=["embed", "encoder", "pooler"])
    assert [r.reducer for r in report.records] == ["tokens=mean", "tokens=mean", None]
    hooked = probed(
        network,
        *data,
        layers=["embed", "encoder", "pooler"],
        forward=lambda net, batch: net(batch["input_ids"], batch["attention_mask"]),
    )
    assert same(report, hooked)


def test_tokens_with_labels_of_their_own_are_held_out_by_sequence(monkeypatch):
    torch.manual_seed(0)
    words, mask, labels = sentences(30)
    held = {}
    original = label_sets.holdout_order_by_group

    def watched(labels, groups, fraction, generator):
        order, count = original(labels, groups, fraction, generator)
        held["out"], held["in"] = groups[order[-count:]], groups[order[:-count]]
        return order, count

    monkeypatch.setattr(label_sets, "holdout_order_by_group", watched)
    data = {"input_ids": words, "attention_mask": mask, "labels": labels}
    report = probed(Encoder(), data, data, tokens="all")
    assert not set(held["out"].tolist()) & set(held["in"].tolist())
    assert len(held["out"]) + len(held["in"]) == int(mask.sum())
    assert "pooler" not in report, "it has no tokens"
    assert report["embed"].record.test_error_rate < 0.2 and report["embed"].record.num_features == 8
    assert report.run.dataset.num_test == int(mask.sum())
    assert report["embed"].features(torch.zeros(2, 5, 8)).shape == (10, 8)


def test_groups_hold_together(network):
    x, y = images(20)
    y = y[torch.randperm(20)]  # nothing can be learnt, but a copy gives its sample away
    copies, groups = (x.repeat(4, 1, 1, 1), y.repeat(4)), torch.arange(20).repeat(4)
    apart = probed(network, copies, images(9, seed=1), layers="layer1", groups=groups)
    together = probed(network, copies, images(9, seed=1), layers="layer1")
    errors = [r["layer1"].record.validation_cross_entropy for r in (apart, together)]
    assert errors[0] > 0.9 > 0.2 > errors[1]
    with pytest.raises(LinprobeError, match="1 groups stand in both splits, 5 for one"):
        probed(network, copies, images(9), layers="fc", groups=(groups, [5] * 9))


def test_the_reducer_is_chosen_by_the_budget_and_stated(network):
    data = images(60), images(40, seed=1)
    report = probed(network, *data, layers=["layer1", "layer2", "fc"], memory_bytes=4 * 100 * 70)
    assert [r.reducer for r in report.records] == ["pool:4", "pool:3", None]
    assert [r.num_features for r in report.records] == [64, 54, 3]
    assert "pool:4" in str(report)
    pooled = probed(network, *data, layers=["layer1"], reduce="pool:4")
    torch.testing.assert_close(report["layer1"].weight, pooled["layer1"].weight)


def test_a_nonfinite_layer_is_flagged_and_the_others_finish(network):
    with torch.no_grad():
        network.fc.weight.fill_(torch.inf)
    report = probed(network, images(30), images(30, seed=1), layers=["layer1", "fc"])
    assert report["layer1"].record.converged
    assert report["fc"].record.status == "nonfinite_features"
    assert "Layer 'fc': 30 of 30 training rows (the first is row 0) and 30 of" in report.notes[0]


class Fails(nn.Module):
    def __init__(self, after):
        super().__init__()
        self.fc = nn.Linear(64, 3)
        self.left = after

    def forward(self, x):
        self.left -= 1
        if self.left < 0:
            raise ValueError("the cat\nsat on the mat")
        return self.fc(x.flatten(1))


@pytest.mark.parametrize("after", [0, 1, 2, 5])
def test_a_network_that_fails_shows_its_error_and_keeps_no_hooks(after):
    network = Fails(after).train()
    with pytest.raises(
        LinprobeError, match=r"fails on a batch of \d+ samples: ValueError: the cat$"
    ):
        probed(network, images(30), images(30, seed=1), batch_size=10)
    assert network.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


X, Y = images(30)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": "layer7"}, "there is no layer 'layer7'; near names: 'layer2', 'layer1'"),
        ({"train": (X, Y + 0.5)}, "train labels hold [0-2].5; expected a class for each sample"),
        ({"train": (X, Y * 0)}, r"the train labels are of one class only \(0\)"),
        ({"train": (X, Y[:9])}, "train arrays differ in length: x has 30, labels has 9"),
        ({"train": []}, "the train data is empty"),
        ({"test": iter([(X, Y)])}, "the test data is a list_iterator, which can be read only once"),
        ({"train": (X, None)}, "labels of the train data is a NoneType; expected an array"),
        ({"test": {"x": X}}, "the test data has the keys 'x'; expected its labels under 'labels'"),
        ({"layers": 3}, "there is no layer '3'"),
        ({"layers": 2.5}, "layers is 2.5; expected a name or pattern"),
        ({"layers": ["fc", None]}, r"layers is \['fc', None\]; expected a name or pattern"),
        ({"reduce": None}, "reduce is None; expected 'auto'"),
        ({"tol": "small"}, "tol is 'small'; expected a positive number"),
        ({"batch_size": 2.5}, "batch_size is 2.5; expected a whole number"),
        ({"progress": 5}, "progress is 5; expected None, True, False or a function"),
        (
            {"train": {"x": X, "text": ["a"] * 30, "labels": Y}},
            "TypeError: .* unexpected keyword argument 'text'; if it is called otherwise, give for",
        ),
        ({"reduce": "median"}, "reduce is 'median'; expected 'auto'"),
        ({"tokens": "cls"}, "tokens is 'cls'; expected"),
        ({"seed": -1}, "seed is -1"),
        ({"l2": ()}, r"l2 is \(\); expected a positive number"),
        ({"device": "tpu"}, "device is 'tpu', which can't be used here"),
        ({"groups": [0, 1]}, r"groups of the train samples have shape \(2,\)"),
        ({"tokens": "all"}, r"tokens='all' meets labels of shape \(30,\)"),
    ],
)
def test_bad_input_is_one_clear_line(network, changes, message):
    options = {"network": network, "train": (X, Y), "test": (X, Y), "l2": PATH, **changes}
    with pytest.raises(LinprobeError, match=message) as caught:
        linprobe.probe(**grouped(**options))
    assert "\n" not in str(caught.value)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


class Once:
    """Gives the iterator that it gave before."""

    def __init__(self, *batches):
        self.iterator = iter(batches)

    def __iter__(self):
        return self.iterator


@pytest.mark.parametrize("split", ["train", "test"])
def test_data_that_is_used_up_when_its_labels_are_read(network, split):
    data = {"train": (X, Y), "test": (X, Y), split: Once((X[:9], Y[:9]), (X[9:], Y[9:]))}
    with pytest.raises(LinprobeError, match=f"the {split} data gives (no batch|0 samples)"):
        probed(network, **data)


class Greedy(nn.Module):
    """Takes more memory than there is for more than a few samples."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 3)

    def forward(self, x):
        if len(x) > 10:
            torch.empty(10**15)
        return self.fc(x.flatten(1))


def test_a_network_whose_batches_are_too_large():
    with pytest.raises(
        LinprobeError, match=r"batch of 30 samples: .*; give smaller batches, by ba"
    ):
        probed(Greedy(), (X, Y), (X, Y))
    assert probed(Greedy(), (X, Y), (X, Y), batch_size=10)["fc"].record.converged


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_lazy_network_is_not_given_its_weights():
    network = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(LinprobeError, match="layer '1' is a LazyLinear without weights as yet"):
        probed(network, (X, Y), (X, Y))
    assert nn.parameter.is_lazy(network[1].weight)


def test_what_is_no_network():
    with pytest.raises(LinprobeError, match=r"network is a function; expected a torch.nn.Module"):
        linprobe.probe(lambda x: x, (X, Y), (X, Y))


def test_progress_goes_from_nothing_to_all(network):
    events = []
    probed(network, (X, Y), (X, Y), layers=["layer1", "fc"], progress=events.append)
    assert {event.stage for event in events} == {"extract", "solve"}
    assert [e.fraction for e in events] == sorted(e.fraction for e in events)
    assert events[-1].fraction == pytest.approx(1)


def test_narrow_layers_are_solved_side_by_side(network, monkeypatch):
    alone = probed(network, (X, Y), (X, Y), layers=["layer1", "layer2", "fc"])
    monkeypatch.setattr(linprobe.pipeline.network_layers, "thread_count", lambda device: 3)
    threads, events = set(), []
    real = linprobe.pipeline.engine.fit_layer

    def fit_layer(*args, **options):
        threads.add(threading.get_ident())
        return real(*args, **options)

    monkeypatch.setattr(linprobe.pipeline.engine, "fit_layer", fit_layer)
    monkeypatch.setattr(linprobe.runtime.threads, "NARROW", 100)
    report = probed(
        network, (X, Y), (X, Y), layers=["layer1", "layer2", "fc"], progress=events.append
    )
    assert len(threads - {threading.get_ident()}) >= 1 and threading.get_ident() in threads
    assert list(report) == list(alone) and [r.index for r in report.records] == [0, 1, 2]
    for layer in alone:
        torch.testing.assert_close(report[layer].weight, alone[layer].weight, rtol=1e-3, atol=1e-4)
        assert report[layer].record.l2 == alone[layer].record.l2
    assert [e.fraction for e in events] == sorted(e.fraction for e in events)
    assert events[-1].fraction == pytest.approx(1)


def test_a_loader_with_workers(network):
    loaders = [
        torch.utils.data.DataLoader(Jitter(30, seed), 8, shuffle=True, num_workers=1)
        for seed in (0, 1)
    ]
    first, second = (probed(network, *loaders, layers="fc") for _ in range(2))
    assert same(first, second)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_network_on_a_gpu_gets_the_same_errors(network):
    train, test = images(60), images(40, seed=1)
    here = probed(network, train, test, layers=["layer2", "fc"])
    there = probed(network.cuda(), train, test, layers=["layer2", "fc"])
    assert there.run.environment.device.startswith("cuda")
    for layer in here:
        assert here[layer].record.test_error_rate == there[layer].record.test_error_rate
        assert there[layer].weight.device.type == "cpu"


class Halves(nn.Module):
    """Has leaves of other shapes than (samples, ...), one of them by chance for three samples."""

    def __init__(self):
        super().__init__()
        self.kernel, self.mean, self.fc = nn.Identity(), nn.Identity(), nn.Linear(64, 3)
        self.weight = nn.Parameter(torch.ones(3, 1))

    def forward(self, x):
        shift = self.kernel(self.weight * 2).sum() + self.mean(x.mean() * 1)
        return self.fc(x.flatten(1) + shift)


def test_leaves_without_samples_are_left_out_and_the_report_says_so():
    network = Halves()
    network.kernel.register_forward_hook(lambda module, args, out: out + 1)
    network.mean.register_forward_hook(lambda module, args, out: out + 1)
    report = probed(network, (X, Y), (X, Y))
    assert list(report) == ["fc"]
    assert report.notes[0].startswith("Left out: layer 'kernel', which gives shape (3, 1) for 2")
    assert report.notes[0].endswith(", and 1 more.")
    with pytest.raises(LinprobeError, match=r"layer 'kernel' gives shape \(3, 1\) for 2 samples"):
        probed(network, (X, Y), (X, Y), layers="kernel")


def test_positions_that_were_taken_for_tokens_are_reported():
    network = nn.Sequential(nn.Flatten(2), nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Flatten())
    layers = ["1:in", "1", "3"]
    note = "Channels come first in layer '1': positions were taken for tokens; tokens=None keeps"
    assert any(n.startswith(note) for n in probed(network, (X, Y), (X, Y), layers=layers).notes)
    flat = probed(network, (X, Y), (X, Y), layers=layers, tokens=None)
    assert not any("tokens" in n for n in flat.notes)
    assert [r.num_features for r in flat.records] == [64, 248, 248]


def test_a_compiled_network_goes_by_its_own_name(network):
    data = {"train": (X, Y), "test": (X, Y), "layers": "layer?.0.relu*"}
    plain = probed(network, **data)
    compiled = probed(torch.compile(network, backend="eager"), **data)
    assert list(compiled) == [f"layer{i}.0.relu{call}" for i in (1, 2) for call in ("", "#2")]
    assert same(plain, compiled)
    assert compiled.run.config.extraction.network == plain.run.config.extraction.network == "ResNet"


def test_a_network_without_values():
    with pytest.raises(LinprobeError, match="parameters on the device 'meta', without values"):
        probed(ResNet().to("meta"), (X, Y), (X, Y))


def test_controls_from_inputs_have_no_tokens():
    words, mask, labels = sentences(30)
    data = {"input_ids": words, "attention_mask": mask, "labels": labels}
    with pytest.raises(LinprobeError, match="need a row for each sample; with tokens='all'"):
        probed(Encoder(), data, data, tokens="all", controls=["random_features"])
