"""``linprobe probe`` keeps what is finished, whatever ends it."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

import linprobe
from linprobe.cli import main as cli
from linprobe.pipeline import array_layers, engine, network_layers
from linprobe.records.store import load_run
from linprobe.runtime.lock import folder_lock
from tests.cli.test_main import error_line
from tests.cli.test_probe import npz as npz
from tests.cli.test_probe import own
from tests.support.faults import file_sizes_up_to


@pytest.fixture
def call(npz, tmp_path, monkeypatch):
    for module in (array_layers, network_layers):
        monkeypatch.setattr(module, "thread_count", lambda device: 1)

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


@pytest.mark.parametrize(
    ("name", "code", "said"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")]
)
def test_a_real_signal_to_a_real_process(name, code, said, npz, tmp_path):
    words = ["probe", own("small"), "--data", npz, "--layers", "1,2,4", "--l2", "1e-2"]
    out = ["--out", str(tmp_path / "run")]

    def run(at):
        command = [sys.executable, "-m", "tests.support.signalled", name, at, *words, *out]
        return subprocess.run(command, capture_output=True, text=True)

    done = run("4")
    assert done.returncode == code and done.stdout.split() == ["fits", "1", "fits", "2"]
    assert done.stderr.splitlines()[-1] == (
        f"linprobe: {said}; finished layers are kept in {tmp_path / 'run'}; the same command goes "
        "on from there"
    )
    assert "Traceback" not in done.stderr
    done = run("none")
    assert done.returncode == 0 and done.stdout.startswith("fits 4\n")
    assert done.stdout.count("fits") == 1 and load_run(tmp_path / "run").complete


def test_a_folder_that_another_process_writes_to(call, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    with folder_lock(tmp_path / "run"):
        assert call() == 2
    assert error_line(capsys) == (
        f"linprobe: another process is writing a run to {tmp_path / 'run'}; wait until it ends, or "
        "choose another folder\n"
    )
    assert call() == 0


def test_a_disk_that_has_no_room_for_the_page(call, tmp_path, monkeypatch, capsys):
    """The system itself refuses the write of a file of 5 MB, when all layers are done."""
    with file_sizes_up_to(2**20), pytest.warns(UserWarning, match=r"report\.html can't be written"):
        assert call() == 2
    captured = capsys.readouterr()
    assert "3 of 3 probes converged" in captured.out
    said = captured.err.splitlines()[-1]
    assert "report.html can't be written (File too large); expected a folder that you may" in said
    assert said.endswith("free some, or choose another; the same command then writes it")
    assert not list(tmp_path.rglob("*.part"))
    calls = end_at(monkeypatch, None, None)
    assert call() == 0 and calls == []
    assert (tmp_path / "run" / "report.html").exists()
