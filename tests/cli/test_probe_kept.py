"""``linprobe probe`` keeps what is finished, whatever ends it."""

import errno
import json
from pathlib import Path

import pytest

import linprobe
from linprobe.cli import main as cli
from linprobe.pipeline import engine, sources
from linprobe.records.store import load_run
from tests.cli.test_main import error_line
from tests.cli.test_probe import npz as npz
from tests.cli.test_probe import own


@pytest.fixture
def call(npz, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "thread_count", lambda device: 1)

    def run(*flags, out="run"):
        common = ["--data", npz, "--layers", "1,2,4", "--l2", "1e-2,1e-3"]
        return cli.main(["probe", own("small"), *common, "--out", str(tmp_path / out), *flags])

    return run


def end_at(monkeypatch, layer, error):
    real, calls = engine.fit_layer, []

    def fit_layer(name, *args):
        calls.append(name)
        if name == layer:
            raise error
        return real(name, *args)

    monkeypatch.setattr(engine, "fit_layer", fit_layer)
    return calls


def test_after_ctrl_c_the_same_command_goes_on(call, tmp_path, monkeypatch, capsys):
    assert call(out="whole") == 0
    with monkeypatch.context() as patch:
        end_at(patch, "4", KeyboardInterrupt())
        capsys.readouterr()
        assert call() == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        f"linprobe: interrupted; finished layers are kept in {tmp_path / 'run'}; the same command "
        "goes on from there"
    )
    calls = end_at(monkeypatch, None, None)
    assert call() == 0 and calls == ["4"]
    assert f"Written to {tmp_path / 'run'}" in capsys.readouterr().out
    run, whole = (load_run(tmp_path / name) for name in ("run", "whole"))
    assert run.config.loading == whole.config.loading and run.dataset == whole.dataset
    assert run.config.fingerprint == whole.config.fingerprint is not None
    rates = [[p.test_error_rate for p in r.checkpoints[0].probes] for r in (run, whole)]
    assert rates[0] == rates[1]


def test_a_finished_run_is_printed_again(call, monkeypatch, capsys):
    assert call() == 0
    first = capsys.readouterr().out
    calls = end_at(monkeypatch, None, None)
    assert call() == 0 and calls == []
    assert capsys.readouterr().out == first


def test_another_run_is_refused_unless_it_is_to_be_overwritten(call, tmp_path, capsys):
    assert call() == 0
    capsys.readouterr()
    assert call("--seed", "5") == 2
    assert "already holds a run of other data" in (said := error_line(capsys))
    assert said.endswith("replace that run with --overwrite\n")
    assert call("--seed", "5", "--overwrite", "--layers", "nonsense") == 2
    assert load_run(tmp_path / "run").seed == 0  # refused before anything was deleted
    assert call("--seed", "5", "--overwrite") == 0
    assert load_run(tmp_path / "run").seed == 5


def test_a_layer_that_fails_is_listed_and_strict_ends_the_run(call, tmp_path, monkeypatch, capsys):
    end_at(monkeypatch, "2", MemoryError("no room"))
    assert call() == 0
    assert "Layer '2' has no probe: MemoryError: no room." in capsys.readouterr().out
    statuses = [p.status for p in load_run(tmp_path / "run").checkpoints[0].probes]
    assert statuses == ["converged", "failed", "converged"]
    assert call("--strict", out="strict") == 1
    assert not (tmp_path / "strict" / "results.json").exists()


def test_a_disk_that_is_full_at_the_end(call, tmp_path, monkeypatch, capsys):
    real = Path.replace

    def full(self, target):
        if Path(target).name == "results.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, target)

    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="No space left"):
        patch.setattr(Path, "replace", full)
        assert call() == 2
    captured = capsys.readouterr()
    assert "3 of 3 probes converged" in captured.out and "Written to" not in captured.out
    assert "results.json can't be written (No space left" in captured.err.splitlines()[-1]
    calls = end_at(monkeypatch, None, None)
    assert call() == 0 and calls == []
    assert json.loads((tmp_path / "run" / "results.json").read_text())["complete"]
    assert len(linprobe.load_report(tmp_path / "run")) == 3
