"""Every command in terminals that can't show every character."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest

from linprobe.cli.main import main

NET = """
from torch import nn

class Größe(nn.Linear):
    pass

def make():
    network = nn.Sequential()
    network.add_module("größe_\N{RIGHTWARDS ARROW}", nn.Linear(4, 4))
    network.add_module("\u65e5" * 40, Größe(4, 4))
    return network
"""
NAMES = {
    "ascii": r"gr\xf6\xdfe_->",
    "latin-1": "größe_->",
    "cp1252": "größe_->",
    "utf-8": "größe_\N{RIGHTWARDS ARROW}",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("odd")
    (place / "net.py").write_text(NET, encoding="utf-8")
    y = np.arange(40) % 2
    x = np.random.default_rng(0).normal(size=(40, 4)).astype("f") + y[:, None]
    np.savez(place / "d.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return place


def run(monkeypatch, folder, encoding, command):
    """Exit code and output of a command in a terminal of this encoding."""
    monkeypatch.chdir(folder)
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        code = main(command.split())
    for stream in streams:
        stream.flush()
    return code, *(stream.buffer.getvalue().decode(encoding) for stream in streams)


@pytest.mark.parametrize("encoding", NAMES)
def test_commands_print_names_that_the_terminal_lacks(encoding, folder, monkeypatch):
    out = f"run\N{RIGHTWARDS ARROW}{encoding}"
    data = "net.py:make --data npz:d.npz"
    for command, shown in [
        (f"layers {data}", NAMES[encoding]),
        (f"probe {data} --l2 1e-3 --out {out}", NAMES[encoding]),
        (f"show {out}", NAMES[encoding]),
        (f"report {out}", "Written to run"),
    ]:
        code, output, errors = run(monkeypatch, folder, encoding, command)
        assert code == 0, errors
        assert shown in output
        if not encoding.startswith("utf"):
            assert r"\u65e5" in output or command.startswith("report")


@pytest.mark.parametrize("encoding", NAMES)
def test_errors_and_help_print_what_the_terminal_lacks(encoding, folder, monkeypatch):
    code, output, errors = run(monkeypatch, folder, encoding, "show größe_\N{RIGHTWARDS ARROW}")
    assert code == 2 and output == ""
    assert errors.startswith(f"linprobe: {NAMES[encoding]} can't be read")
    assert errors.count("\n") == 1
    assert run(monkeypatch, folder, encoding, "probe --help")[0] == 0


def test_a_process_in_a_narrow_plain_terminal(folder):
    code = "import sys; from linprobe.cli.main import main; sys.exit(main())"
    asked = ["layers", "net.py:make", "--shape", "4", "--layers", "größe_\N{RIGHTWARDS ARROW}"]
    plain = {"PYTHONIOENCODING": "cp1252", "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "20"}
    done = subprocess.run(
        [sys.executable, "-c", code, *asked],
        cwd=folder,
        capture_output=True,
        env=os.environ | plain,
    )
    assert done.returncode == 0, done.stderr
    assert "größe_->" in done.stdout.decode("cp1252")
