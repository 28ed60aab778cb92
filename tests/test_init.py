"""The public names, and the modules that have moved."""

import importlib
import os
import subprocess
import sys

import pytest

import linprobe

os.environ.setdefault("KERAS_BACKEND", "torch")


def test_every_public_name_is_there():
    for name in dir(linprobe):
        assert getattr(linprobe, name).__name__ == name


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = linprobe.nonsense


def test_dir_lists_the_public_names_and_a_star_import_needs_no_keras():
    assert set(dir(linprobe)) - set(linprobe.__all__) == {"KerasNetwork"}
    assert {"probe", "fit_probes", "load_dataset", "load_run", "ProbeConfig"} < set(dir(linprobe))
    assert not {"importlib", "lazy_loader", "sys"} & set(dir(linprobe))


def test_importing_linprobe_imports_nothing_heavy():
    code = (
        "import sys, linprobe; dir(linprobe)\n"
        "print([name for name in ('torch', 'numpy', 'scipy', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


MOVED = [
    ("results", "records.store", "load_run"),
    ("controls", "evaluation.controls", "Controls"),
    ("sklearn", "integrations.sklearn", "CertifiedLogisticRegression"),
    ("keras", "integrations.keras", "KerasNetwork"),
]


@pytest.fixture
def forgetful():
    """Modules that have moved are forgotten after the test."""
    yield
    for old, _, _ in MOVED:
        sys.modules.pop(f"linprobe.{old}", None)
        vars(linprobe).pop(old, None)


@pytest.mark.parametrize(("old", "new", "name"), MOVED)
def test_moved_modules_are_found_by_their_former_names(forgetful, old, new, name):
    expected = getattr(importlib.import_module(f"linprobe.{new}"), name)
    message = rf"linprobe\.{old} is called linprobe\.{new} now"
    with pytest.warns(DeprecationWarning, match=message) as caught:
        assert getattr(getattr(linprobe, old), name) is expected
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning, match=message):
        found = importlib.import_module(f"linprobe.{old}")
    assert getattr(found, name) is expected


def test_an_import_statement_is_blamed_for_the_former_name(forgetful):
    with pytest.warns(DeprecationWarning, match="linprobe.records.store") as caught:
        from linprobe.results import load_run
    assert load_run is linprobe.load_run
    assert caught[0].filename == __file__


def test_no_other_module_is_made_up():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("linprobe.nonsense")


def test_the_first_use_of_a_name_leaves_pythons_random_numbers_alone():
    code = (
        "import random; random.seed(1); state = random.getstate()\n"
        "import linprobe; linprobe.fit_probes, linprobe.probe\n"
        "assert random.getstate() == state"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
