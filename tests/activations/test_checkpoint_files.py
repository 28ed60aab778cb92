"""Files of weights that are odd, or meant to do harm."""

import pytest
import torch
from torch import nn

from linprobe.activations.checkpoint_files import read_checkpoint
from linprobe.activations.checkpoints import load_weights
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.tensors import write_tensors


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4))


def read(found, folder):
    torch.save(found, folder / "a.pt")
    return read_checkpoint(folder / "a.pt")


ODD = {
    "parameters in a list": {"_parameters": [1, 2]},
    "modules in a list": {"_modules": [1]},
    "names that are numbers": {"_parameters": {3: torch.ones(1), None: torch.ones(2)}},
    "buffers that are nothing": {"_buffers": None, "_non_persistent_buffers_set": 5},
}


@pytest.mark.parametrize("state", ODD.values(), ids=ODD)
def test_a_network_saved_whole_that_holds_odd_things(state, tmp_path):
    network = net()
    network.__dict__.update(state)
    found = read({"model": network}, tmp_path)
    assert found["model"].keys() in ({"0.weight", "0.bias"}, set())


def test_modules_and_dicts_that_hold_themselves(tmp_path):
    network, holder = net(), {"a": torch.ones(1)}
    for name in ("left", "right"):
        network.__dict__["_modules"][name] = network
        holder[name] = holder
    found = read({"model": network}, tmp_path)["model"]
    assert {"0.weight", "left.0.weight"} <= found.keys()
    found = read(holder, tmp_path)
    assert all(list(tensors) == ["a"] for tensors in found.values())


KINDS = {
    "sparse_coo, float32": torch.eye(4, 3).to_sparse(),
    "strided, complex64": torch.ones(4, 3, dtype=torch.complex64),
    "meta, without values, float32": torch.ones(4, 3, device="meta"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_without_plain_numbers_are_named(kind, tmp_path):
    network = net()
    torch.save({**network.state_dict(), "0.weight": KINDS[kind]}, tmp_path / "a.pt")
    message = rf"it has no plain numbers for 0\.weight \({kind}\); give the factory"
    with pytest.raises(LinprobeError, match=message):
        load_weights(network, tmp_path / "a.pt")
    loaded = load_weights(network, tmp_path / "a.pt", partial=True)
    assert loaded.random == ("0.weight",)


class Picky(nn.Linear):
    def _load_from_state_dict(self, *args):
        raise KeyError("not today\nnor tomorrow")


def test_a_module_that_refuses_its_tensors(tmp_path):
    torch.save(nn.Linear(3, 4).state_dict(), tmp_path / "a.pt")
    with pytest.raises(LinprobeError, match="holds tensors that the network doesn't take") as error:
        load_weights(Picky(3, 4), tmp_path / "a.pt")
    assert "\n" not in str(error.value)


def test_a_flipped_bit_in_a_network_of_a_run_is_found(tmp_path):
    path = tmp_path / "net.safetensors"
    write_tensors(path, net().state_dict())
    assert torch.equal(read_checkpoint(path)[""]["0.weight"], net()[0].weight)
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 16
    path.write_bytes(raw)
    with pytest.raises(LinprobeError, match=r"^checkpoint .*net\.safetensors is damaged \(its c"):
        read_checkpoint(path)
