"""``linprobe compare`` from the command line."""

import csv
from typing import get_args

import pytest

from linprobe.cli import compare
from linprobe.cli import main as cli
from linprobe.records.published import READINGS
from linprobe.records.store import save
from linprobe.report.plots import FORMATS
from tests.records.comparison.test_distances import deep
from tests.support.records import checkpoint_record, run_record


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Folders a and b of runs; many, of three seeds, one unfinished; deep; fig5; late."""
    monkeypatch.chdir(tmp_path)
    first = checkpoint_record([0.1, 0.2, 0.3, 0.4])
    save(run_record(first), tmp_path / "a")
    save(run_record(checkpoint_record([0.1, 0.25, 0.3, 0.4]), protocol="sgd"), tmp_path / "b")
    for seed in range(3):
        run = run_record(first, seed=seed, complete=seed < 2)
        save(run, tmp_path / "many" / f"seed{seed}")
    save(run_record(first, experiment="fig5"), tmp_path / "fig5")
    save(run_record(checkpoint_record([0.1], "late", 9), complete=False), tmp_path / "late")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "results.json").write_text("{")
    return tmp_path


def run_command(arguments, capsys):
    code = cli.main(["compare", *arguments.split()])
    return code, capsys.readouterr()


def test_figure_table_and_csv(runs, capsys):
    code, captured = run_command("a b many --out OUT", capsys)
    assert code == 0
    out = captured.out
    assert out.startswith("many: seeds left out because their runs are unfinished: 1\n")
    row = next(line for line in out.splitlines() if "sgd" in line)
    for text in ("untrained", "0.0125", "0.0250", "0.0000", "+0.0500", "layer1"):
        assert text in row
    assert "lower half upper half" in out
    assert "mean of n = 2" in out
    assert "Written to OUT/compare.png, OUT/compare.svg, OUT/compare.csv" in out
    assert (runs / "OUT" / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert (runs / "OUT" / "compare.svg").read_bytes().startswith(b"<?xml")
    with (runs / "OUT" / "compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == ["input", "layer1", "layer2", "logits"]
    assert float(rows[1]["sgd, seed 3: minus first"]) == pytest.approx(0.05)
    assert rows[1]["certified, seeds 0, 1: n"] == "2"


def test_published_numbers_set_the_split(runs, capsys):
    for run in deep(0.0).runs:
        save(run, runs / "deep")
    code, captured = run_command("deep --published --reading input --format pdf --out x", capsys)
    assert code == 0
    assert captured.out.startswith("train error")
    assert "published (bar 0 =" in captured.out
    assert "precision 0.003" in captured.out
    assert "both readings are in the table" in captured.out
    assert sorted(path.name for path in (runs / "x").iterdir()) == ["compare.csv", "compare.pdf"]
    arguments = "deep --published --split test --checkpoint step500 --format svg --out y"
    code, captured = run_command(arguments, capsys)
    assert code == 0
    assert "published numbers are train errors, and test errors are compared" in captured.out
    assert "untrained" not in captured.out


def test_doubtful_runs_are_named(runs, capsys):
    save(run_record(checkpoint_record([0.1]), quick=True, complete=False), runs / "quick")
    code, captured = run_command("a quick --format png", capsys)
    assert code == 0
    assert "QUICK RUN among them: not a result." in captured.out
    assert "UNFINISHED RUN among them" in captured.out
    assert "untrained: 3 layers of a are left out" in captured.out
    assert (runs / "runs" / "compare" / "compare.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("a", "one RUN given; expected two or more, or --published"),
        ("a b ../{here}/a", "a is given twice; expected different runs"),
        ("a none", "none can't be read"),
        ("a broken", "broken/results.json is not valid JSON"),
        ("a fig5", "the runs are of different experiments (fig5, fig8)"),
        ("a late", "no checkpoint in common (a: untrained; late: late)"),
        ("a b --checkpoint late", "certified has no checkpoint 'late'; it has: untrained"),
        ("a --published", "128 layers, but a run has None; leave --published out"),
        ("a b --split validation", 'invalid value "validation" for --split. Choose from: '),
        ("a b --out a/results.json", "can't write to a/results.json"),
    ],
)
def test_errors_are_one_line_and_write_nothing(arguments, message, runs, capsys):
    before = sorted(runs.rglob("*"))
    code, captured = run_command(arguments.format(here=runs.name), capsys)
    assert code == 2
    assert message.format(here=runs.name) in captured.err
    assert captured.err.count("\n") == 1
    assert sorted(runs.rglob("*")) == before


@pytest.mark.parametrize("command", ["show", "report", "plot"])
def test_commands_for_one_run_name_the_seeds(command, runs, capsys):
    assert cli.main([command, "many"]) == 2
    error = capsys.readouterr().err
    assert "many holds the runs of several seeds; expected one of them: many/seed0, " in error
    assert error.count("\n") == 1


def test_choices_are_those_of_the_modules():
    assert get_args(compare.Format) == FORMATS
    assert get_args(compare.Reading) == READINGS
