"""Networks by name and checkpoints from files."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from linprobe.activations.load import build_network, load_weights
from linprobe.runtime.errors import LinprobeError

READY = nn.Linear(2, 2)
NUMBER = 5


class Tied(nn.Module):
    """Embedding and output share their weight, as language models do."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


def fails():
    raise ValueError("no weights\nanywhere")


def gives_a_number():
    return 5


def own(name):
    return f"{__file__}:{name}"


def test_untrained_weights_come_from_the_seed():
    before = torch.random.get_rng_state()
    first, again, other = (
        build_network("torch.nn:Linear", {"in_features": 3, "out_features": 2}, seed)
        for seed in (0, 0, 1)
    )
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_network_is_taken_as_it_is():
    assert isinstance(build_network(own("READY"), {}, 0), nn.Linear)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NUMBER", r"is a int; expected a function or class that gives a torch\.nn\.Module"),
        ("fails", r"failed: ValueError: no weights; expected .* called with \(\)"),
        ("gives_a_number", r"gave a int; expected a torch\.nn\.Module"),
    ],
)
def test_factories_that_give_no_network(name, message):
    with pytest.raises(LinprobeError, match=message) as caught:
        build_network(own(name), {}, 0)
    assert "\n" not in str(caught.value)


def test_wrong_keywords_are_shown():
    with pytest.raises(LinprobeError, match=r"TypeError: .*width.* called with \(width=3\)"):
        build_network("torch.nn:Linear", {"width": 3}, 0)


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
    digest = load_weights(network, tmp_path / "a.pt")
    assert same(source, network)
    assert digest == hashlib.sha256((tmp_path / "a.pt").read_bytes()).hexdigest()


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
        (lambda s: s.pop("0.weight"), r"it lacks 0\.weight; give the factory"),
        (lambda s: s.update(more=torch.ones(1)), r"it has, unlike the network, more;"),
        (
            lambda s: s.update({"0.bias": torch.ones(5)}),
            r"it has other shapes for 0\.bias \(5,\) instead of \(4,\)",
        ),
        (lambda s: s.clear(), r"it lacks 0\.weight, 0\.bias, 1\.weight and 6 more"),
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
    torch.save(network, tmp_path / "code.pt")
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    torch.save({"a": 1}, tmp_path / "numbers.pt")
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    for name, message in {
        "code.pt": r"no file of tensors \(UnpicklingError\); .* could run code",
        "list.pt": "holds a list that is no state dict",
        "numbers.pt": "holds a dict that is no state dict",
        "text.pt": "no file of tensors",
        "text.safetensors": "no safetensors file",
        "missing.pt": "can't be read",
        "missing.safetensors": "can't be read",
    }.items():
        with pytest.raises(LinprobeError, match=message) as caught:
            load_weights(network, tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)
