"""What no line of the package does, and that a record makes nothing be imported."""

import ast
import io
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest

import linprobe
from linprobe.cli.main import main
from linprobe.records.config import LoadingRecord
from linprobe.records.store import load_run, save
from tests.support.records import checkpoint_record, run_record

SOURCES = sorted(Path(linprobe.__file__).parent.rglob("*.py"))
UNPICKLERS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml", "jsonpickle"}
RUNNERS = {"eval", "exec", "compile", "os.system", "os.popen", "runpy.run_path", "input"}
UNPACKERS = {"extractall", "unpack_archive"}
ARCHIVES = {"tarfile", "zipfile"}
"""Modules whose `extract` writes files; `extractfile` reads into memory."""


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def faults(text):
    """What a source does that none may."""
    tree = ast.parse(text)
    modules = set(imports(tree))
    unpackers = UNPACKERS | ({"extract"} if modules & ARCHIVES else set())
    yield from UNPICKLERS & modules
    for name, options in calls(tree):
        if name in RUNNERS or options.get("shell", "False") != "False":
            yield name
        if name.split(".")[-1] in unpackers:
            yield name
        if name.endswith("torch.load") and options.get("weights_only") != "True":
            yield name
        if name in ("np.load", "numpy.load") and options.get("allow_pickle") != "False":
            yield name


def test_no_pickle_is_loaded_no_text_run_and_no_archive_unpacked():
    assert len(SOURCES) > 150
    found = {path.name: list(faults(path.read_text(encoding="utf-8"))) for path in SOURCES}
    assert {name: list(bad) for name, bad in found.items() if bad} == {}


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, mmap_mode='r')",
        "subprocess.run(text, shell=True)",
        "eval(text)",
        "tar.extractall(folder)",
        "import zipfile; archive.extract(name)",
        "shutil.unpack_archive(path)",
    ],
)
def test_each_of_them_would_be_found(text):
    assert len(list(faults(text))) == 1


def test_other_programs_are_started_in_one_place():
    starters = {p.name for p in SOURCES if "subprocess" in set(imports(ast.parse(p.read_text())))}
    assert starters == {"fetch.py"}


def test_nothing_that_a_record_names_is_imported(tmp_path, monkeypatch):
    """A factory is imported because the user names it, never because a file does."""
    (tmp_path / "strangers_module.py").write_text("raise SystemExit('its code ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    named = "strangers_module:make"
    run = run_record(checkpoint_record([0.1, 0.2]), experiment="probe")
    loading = LoadingRecord(factory=named, kwargs={"a": named}, untrained=named)
    dataset = replace(run.dataset, name=named)
    save(replace(run, config=replace(run.config, loading=loading), dataset=dataset), tmp_path / "r")
    assert load_run(tmp_path / "r").config.loading.factory == named
    with redirect_stdout(io.StringIO()):
        for words in (["show"], ["report"], ["plot", "--format", "svg"]):
            assert main([*words, str(tmp_path / "r")]) == 0
    assert "strangers_module" not in sys.modules
