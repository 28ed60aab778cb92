"""``linprobe show`` from the command line."""

import os
import subprocess
import sys

import pytest

from linprobe.cli import main as cli
from linprobe.records.store import save
from tests.support.records import checkpoint_record, probe_record, run_record, step_record

LONG = "encoder." + "block." * 11 + "output"


def test_table_curve_and_sentences(tmp_path, capsys):
    checkpoint = checkpoint_record([0.3, 0.2, 0.1], steps=(step_record(),))
    save(run_record(checkpoint, quick=True), tmp_path)
    assert cli.main(["show", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for part in (
        "layer1",
        "0.2000",
        "3 of 3 probes converged",
        "QUICK RUN",
        "test error, untrained",
    ):
        assert part in out
    assert "untrained: Between consecutive layers, the test error has 1 significant drop" in out
    assert "Written to" not in out


def test_deep_runs_whose_checkpoints_differ(tmp_path, capsys):
    first = checkpoint_record([0.3] * 30)
    extra = probe_record(30, LONG, 0.25, "max_passes_reached")
    second = checkpoint_record([], "later", 7, probes=(*first.probes[5:], extra))
    save(run_record(first, second), tmp_path)
    assert cli.main(["show", str(tmp_path / "results.json")]) == 0
    out = capsys.readouterr().out
    assert "0.2500 *" in out
    table, _, _ = out.partition("test error,")
    assert "\N{HORIZONTAL ELLIPSIS}" not in table  # names go on in the next row instead


def test_a_run_without_checkpoints(tmp_path, capsys):
    save(run_record(complete=False), tmp_path)
    assert cli.main(["show", str(tmp_path)]) == 0
    assert "0 of 0 probes converged" in capsys.readouterr().out


@pytest.mark.parametrize(("encoding", "letter"), [("ascii", "*"), ("utf-8", "\u2809")])
def test_terminals_without_braille(encoding, letter, tmp_path):
    save(run_record(checkpoint_record([0.3, 0.3])), tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "linprobe", "show", str(tmp_path)],
        capture_output=True,
        encoding=encoding,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0, done.stderr
    assert letter * 10 in done.stdout


def test_an_unknown_folder_is_named(tmp_path, capsys):
    assert cli.main(["show", str(tmp_path / "none")]) == 2
    assert "none can't be read" in capsys.readouterr().err
