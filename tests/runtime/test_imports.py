"""Objects by name, from modules and files."""

import sys

import pytest
from torch import nn

from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.imports import load_object


def test_attribute_of_an_installed_module():
    assert load_object("torch.nn:Linear", "factory") is nn.Linear
    assert load_object("torch:nn.Linear", "factory") is nn.Linear


def test_module_of_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "only_here_5.py").write_text("value = 7\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert load_object("only_here_5:value", "data") == 7
    assert sys.path == before
    del sys.modules["only_here_5"]


def test_file_with_a_neighbour_and_a_dataclass(tmp_path):
    (tmp_path / "neighbour_5.py").write_text("value = 7\n")
    (tmp_path / "own_file_5.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "from neighbour_5 import value\n\n"
        "@dataclass\nclass Own:\n    number: int = value\n"
    )
    before = list(sys.path)
    own = load_object(f"{tmp_path}/own_file_5.py:Own", "factory")
    assert own().number == 7
    assert sys.path == before
    del sys.modules["own_file_5"], sys.modules["neighbour_5"]


def test_failing_file_leaves_modules_as_they_were(tmp_path, monkeypatch):
    (tmp_path / "failing_5.py").write_text("1 / 0\n")
    for known in (None, sys):
        if known is not None:
            monkeypatch.setitem(sys.modules, "failing_5", known)
        with pytest.raises(LinprobeError, match=r"ZeroDivisionError: division by zero"):
            load_object(f"{tmp_path}/failing_5.py:x", "factory")
        assert sys.modules.get("failing_5") is known


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torch", r"factory is 'torch'; expected package\.module:name or path/to/file\.py:name"),
        (":name", r"factory is ':name'; expected"),
        ("torch:", r"factory is 'torch:'; expected"),
        (
            "no_such_5:f",
            r"factory: can't import 'no_such_5' \(ModuleNotFoundError: .*in this folder",
        ),
        ("no/such.py:f", r"factory: can't import 'no/such\.py' \(FileNotFoundError"),
        ("torch:nn.Lin", r"factory 'torch:nn\.Lin': torch has no 'nn\.Lin'; expected the name"),
    ],
)
def test_bad_names(spec, message):
    with pytest.raises(LinprobeError, match=message) as caught:
        load_object(spec, "factory")
    assert "\n" not in str(caught.value)
