"""Weights from files of every kind: what is found, what fits, and that nothing is run."""

import argparse
import collections
import hashlib
import io
import os
import pathlib
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from linprobe.activations.checkpoints import load_weights
from linprobe.runtime.errors import LinprobeError


class Tied(nn.Module):
    """Embedding and output share their weight, as language models do."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


def pickled(function, argument="touch made-by-a-checkpoint"):
    """A file as torch.save writes it, that calls a function when it is unpickled."""

    class Calls:
        def __reduce__(self):
            return function, (argument,)

    file = io.BytesIO()
    torch.save({"model": net(0).state_dict(), "extra": Calls()}, file)
    return file.getvalue()


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def same(first, second):
    states = first.state_dict(), second.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("nest", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_state_dicts_in_their_usual_wrappings(nest, prefix, tmp_path):
    source, network = net(0), net(1)
    state = {prefix + name: value for name, value in source.state_dict().items()}
    torch.save({nest: state, "epoch": 3} if nest else state, tmp_path / "a.pt")
    assert not same(source, network)
    loaded = load_weights(network, tmp_path / "a.pt")
    assert same(source, network)
    assert (loaded.key, loaded.prefix) == (nest or "", "" if prefix == "_orig_mod." else prefix)
    assert loaded.random == loaded.unused == loaded.notes == ()
    assert loaded.sha256 == hashlib.sha256((tmp_path / "a.pt").read_bytes()).hexdigest()


def test_safetensors(tmp_path):
    source, network = net(0), net(1)
    save_file(source.state_dict(), tmp_path / "a.safetensors")
    load_weights(network, tmp_path / "a.safetensors")
    assert same(source, network)


def test_shared_tensors_may_stand_under_one_name(tmp_path):
    source, network = Tied(), Tied()
    save_file({"embed.weight": source.embed.weight.detach()}, tmp_path / "a.safetensors")
    load_weights(network, tmp_path / "a.safetensors")
    assert torch.equal(network.head.weight, source.embed.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("0.weight"),
            r"it lacks 0\.weight; give the factory .*, or partial=True to take what fits",
        ),
        (lambda s: s.update(more=torch.ones(1)), r"it has, unlike the network, more;"),
        (
            lambda s: s.update({"0.bias": torch.ones(5)}),
            r"it has other shapes for 0\.bias \(5,\) instead of \(4,\)",
        ),
        (
            lambda s: (s.clear(), s.update(a=torch.ones(1))),
            r"it lacks 0\.weight, 0\.bias, 1\.weight and 5 more; it has, unlike the network, a;",
        ),
    ],
)
def test_other_tensors_are_refused_and_nothing_is_loaded(change, message, tmp_path):
    network = net(1)
    state = net(0).state_dict()
    change(state)
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(LinprobeError, match=message):
        load_weights(network, tmp_path / "a.pt")
    assert same(network, net(1))


def test_files_that_are_no_checkpoints(tmp_path):
    network = net()
    (tmp_path / "code.pt").write_bytes(pickled(os.system))
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    torch.save({"a": 1}, tmp_path / "numbers.pt")
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    for name, message in {
        "code.pt": r"no file of tensors \(UnpicklingError\); .* could run code",
        "list.pt": "holds no tensors by name; expected a state dict",
        "numbers.pt": "holds no tensors by name",
        "text.pt": "no file of tensors",
        "text.safetensors": r"is damaged \(.*\); expected a whole safetensors file",
        "missing.pt": "can't be read",
        "missing.safetensors": "can't be read",
    }.items():
        with pytest.raises(LinprobeError, match=message) as caught:
            load_weights(network, tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)


class Config(dict):
    """A dict of its own class, as yacs, easydict and addict have."""

    def __init__(self, **items):
        super().__init__(items)
        self.frozen = True


class Names(list):
    pass


class Schedule:
    def __init__(self):
        self.step = np.float64(3)
        self.rates = collections.defaultdict(list, a=[1])


BESIDE = {
    "namespace": lambda: argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("a"), more=None),
    "numpy": lambda: {"best": np.float32(0.5), "rows": np.arange(3), "type": np.dtype("f4")},
    "random state": lambda: np.random.RandomState(0).get_state(),
    "dict class": lambda: Config(depth=3, inner=Config(a=[1, 2])),
    "list class": lambda: Names(["a", "b"]),
    "objects": lambda: Schedule(),
    "optimizer": lambda: torch.optim.Adam(net().parameters()).state_dict(),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_what_stands_beside_the_weights_does_not_matter(beside, legacy, tmp_path):
    source, network = net(0), net(1)
    held = {"args": beside(), "model": source.state_dict(), "epoch": 3}
    torch.save(held, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    assert load_weights(network, tmp_path / "a.pt").key == "model"
    assert same(source, network)


@pytest.mark.parametrize("function", [eval, exec, print, pickle.loads, getattr])
def test_no_function_of_a_file_is_called(function, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = pickled(function, "open('made-by-a-checkpoint', 'w')")
    (tmp_path / "a.pt").write_bytes(file)
    network = net(1)
    load_weights(network, tmp_path / "a.pt")
    assert same(net(0), network)
    assert not (tmp_path / "made-by-a-checkpoint").exists()


def test_a_class_of_a_file_is_not_made(tmp_path, monkeypatch):
    def refuse(self, *args):
        raise AssertionError("its code ran")

    torch.save({"model": net(0).state_dict(), "extra": Schedule()}, tmp_path / "a.pt")
    for name in ("__init__", "__setstate__", "__new__"):
        monkeypatch.setattr(Schedule, name, refuse, raising=False)
    load_weights(net(1), tmp_path / "a.pt")


def test_a_network_that_was_saved_whole(tmp_path):
    source, network = net(0), net(1)
    source.register_buffer("cache", torch.ones(9), persistent=False)
    torch.save({"model": source, "ema": None}, tmp_path / "a.pt")
    assert load_weights(network, tmp_path / "a.pt").key == "model"
    assert same(source, network)


NESTS = {
    "a": lambda own, other: {"state_dict": {f"module.backbone.{k}": v for k, v in own.items()}},
    "b": lambda own, other: {"teacher": {"encoder": {f"net._orig_mod.{k}": own[k] for k in own}}},
    "c": lambda own, other: {"model": own, "model_ema": dict(own), "head": {"x": torch.ones(2)}},
    "d": lambda own, other: {"model": own, "optimizer": {"state": {0: {"m": torch.ones(4, 3)}}}},
    "e": lambda own, other: {f"encoder.{k}": v for k, v in own.items()} | {"head": torch.ones(3)},
}


@pytest.mark.parametrize(
    ("nest", "key", "prefix", "unused"),
    [
        ("a", "state_dict", "module.backbone.", ()),
        ("b", "teacher.encoder", "net.", ()),
        ("c", "model", "", ()),
        ("d", "model", "", ()),
        ("e", "", "encoder.", ("head",)),
    ],
)
def test_keys_and_prefixes_are_found(nest, key, prefix, unused, tmp_path):
    source, network = net(0), net(1)
    torch.save(NESTS[nest](source.state_dict(), net(2).state_dict()), tmp_path / "a.pt")
    loaded = load_weights(network, tmp_path / "a.pt")
    assert same(source, network)
    assert (loaded.key, loaded.prefix, loaded.unused) == (key, prefix, unused)


def two_sets(path):
    student = {f"module.backbone.{k}": v for k, v in net(0).state_dict().items()}
    teacher = {f"backbone.{k}": v for k, v in net(2).state_dict().items()}
    torch.save({"student": student, "teacher": teacher | {"head.w": torch.ones(2)}}, path)


def test_several_sets_that_fit_are_chosen_from(tmp_path):
    two_sets(tmp_path / "a.pt")
    network = net(1)
    with pytest.raises(
        LinprobeError,
        match=r"several sets .*: key 'student' prefix 'module\.backbone\.', key 'teacher' prefix "
        r"'backbone\.'; choose by checkpoint_key or checkpoint_prefix",
    ):
        load_weights(network, tmp_path / "a.pt")
    assert same(network, net(1))
    load_weights(network, tmp_path / "a.pt", key="student")
    assert same(network, net(0))
    for prefix in ("backbone.", "backbone"):
        network = net(1)
        assert load_weights(network, tmp_path / "a.pt", prefix=prefix).unused == ("head.w",)
        assert same(network, net(2))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"key": "model"}, "no tensors under checkpoint_key='model'; it has some under student, t"),
        ({"prefix": "net."}, r"fit under checkpoint_prefix='net\.'; it has module\.backbone\.0\.w"),
    ],
)
def test_a_key_or_prefix_that_is_not_there(chosen, message, tmp_path):
    two_sets(tmp_path / "a.pt")
    with pytest.raises(LinprobeError, match=message):
        load_weights(net(1), tmp_path / "a.pt", **chosen)


def test_a_partial_load_says_what_stayed_random_and_what_was_not_used(tmp_path):
    state = net(0).state_dict()
    del state["2.bias"]
    state |= {"2.weight": torch.ones(9, 4), "projector.weight": torch.ones(1)}
    torch.save({"model": state}, tmp_path / "a.pt")
    network = net(1)
    with pytest.raises(LinprobeError, match=r"lacks 2\.bias; it has, unlike .* projector\.weight;"):
        load_weights(network, tmp_path / "a.pt")
    loaded = load_weights(network, tmp_path / "a.pt", partial=True)
    assert torch.equal(network[0].weight, net(0)[0].weight)
    assert torch.equal(network[2].weight, net(1)[2].weight)
    assert loaded.random == ("2.weight", "2.bias")
    assert loaded.unused == ("2.weight", "projector.weight")
    assert loaded.notes == (
        "The checkpoint does not give 2 tensors of the network, which stay as made: "
        "2.weight, 2.bias.",
        "Not used of the checkpoint: 2.weight, projector.weight (2 tensors).",
    )
    torch.save({"other": torch.ones(1)}, tmp_path / "b.pt")
    with pytest.raises(LinprobeError, match="doesn't fit the network"):
        load_weights(network, tmp_path / "b.pt", partial=True)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda n: torch.compile(n, backend="eager")])
def test_a_wrapped_network_is_loaded_as_the_one_inside(wrap, tmp_path):
    source, network = net(0), net(1)
    torch.save(source.state_dict(), tmp_path / "a.pt")
    load_weights(wrap(network), tmp_path / "a.pt")
    assert same(source, network)


def test_counts_of_batches_may_be_missing(tmp_path):
    source, network = net(0), net(1)
    state = source.state_dict()
    del state["1.num_batches_tracked"]
    torch.save(state, tmp_path / "a.pt")
    assert load_weights(network, tmp_path / "a.pt").random == ()
    assert same(source, network)
