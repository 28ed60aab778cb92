"""Options that name a network and its weights, from outside."""

import numpy as np
import pytest
import torch
from torch import nn

from linprobe.cli import main as cli
from linprobe.records.store import load_run
from tests.cli.test_main import error_line

STUDENT, TEACHER = ("student", "backbone."), ("teacher", "module.")


def small():
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))


def weights(seed, prefix):
    torch.manual_seed(seed)
    state = small().state_dict()
    del state["2.bias"]
    return {prefix + name: value for name, value in state.items()} | {"head": torch.ones(1)}


@pytest.fixture
def call(tmp_path):
    rng, labels = np.random.default_rng(0), np.arange(60) % 2
    x = (rng.normal(size=(60, 4)) + labels[:, None]).astype(np.float32)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=labels, x_test=x, y_test=labels)
    torch.save({k: weights(i, p) for i, (k, p) in enumerate((STUDENT, TEACHER))}, tmp_path / "a.pt")
    data = ["--data", f"npz:{tmp_path / 'a.npz'}", "--checkpoint", str(tmp_path / "a.pt")]
    return [f"{__file__}:small", *data]


def test_a_part_of_a_checkpoint_and_what_stayed_random(call, tmp_path, capsys):
    chosen = ["--checkpoint-key", "teacher", "--checkpoint-prefix", "module.", "--partial"]
    out = ["--layers", "0", "--l2", "1e-2", "--out", str(tmp_path / "run")]
    assert cli.main(["probe", *call, *chosen, *out]) == 0
    loading = load_run(tmp_path / "run").config.loading
    assert (loading.checkpoint_key, loading.checkpoint_prefix) == ("teacher", "module.")
    assert (loading.random, loading.unused) == (("2.bias",), ("head",))
    said = "does not give 1 tensor of the network, which stay as made: 2.bias"
    assert said in capsys.readouterr().out
    assert cli.main(["layers", *call, *chosen]) == 0
    assert said in capsys.readouterr().out


def test_messages_name_the_flags(call, capsys):
    assert cli.main(["layers", *call, "--partial"]) != 0
    assert "choose by --checkpoint-key or --checkpoint-prefix" in error_line(capsys)
    assert cli.main(["layers", *call, "--checkpoint-key", "teacher"]) != 0
    assert "or --partial to take what fits" in error_line(capsys)
    assert cli.main(["layers", *call, "--checkpoint-key", "model"]) != 0
    assert "no tensors under --checkpoint-key model; it has some under st" in error_line(capsys)
