"""``linprobe plot`` from the command line."""

from typing import get_args

import pytest

from linprobe.cli import main as cli
from linprobe.cli import plot
from linprobe.records.store import save
from linprobe.report.plots import FORMATS
from linprobe.report.style import STYLES
from tests.support.records import checkpoint_record, run_record

BEGINNINGS = {"pdf": b"%PDF", "svg": b"<?xml", "png": b"\x89PNG"}


@pytest.fixture
def run(tmp_path):
    save(run_record(checkpoint_record([0.1, 0.2, 0.3])), tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "name", "kind"),
    [
        ("", "plot-paper.pdf", "pdf"),
        ("--format svg --style slides", "plot-slides.svg", "svg"),
        ("--out OUT/x.png", "x.png", "png"),
        ("--out OUT/x.PNG --format png --checkpoint untrained", "x.PNG", "png"),
        ("--out OUT/x --format svg", "x", "svg"),
    ],
)
def test_file_and_format(arguments, name, kind, run, capsys):
    words = arguments.replace("OUT", str(run)).split()
    assert cli.main(["plot", str(run), *words]) == 0
    assert capsys.readouterr().out == f"Written to {run / name}\n"
    assert (run / name).read_bytes().startswith(BEGINNINGS[kind])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--out x.jpg", "--out x.jpg ends in .jpg; expected pdf, svg, png"),
        ("--out x.png --format pdf", "--out x.png ends in .png, but --format is pdf"),
        ("--format gif", 'invalid value "gif" for --format. Choose from: '),
        ("--checkpoint trained", "no checkpoint 'trained'; it has: untrained"),
        ("--out results.json/x.pdf", "results.json/x.pdf can't be written"),
    ],
)
def test_errors_are_one_line(arguments, message, run, monkeypatch, capsys):
    monkeypatch.chdir(run)
    assert cli.main(["plot", str(run), *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_choices_are_those_of_the_plots():
    assert get_args(plot.Format) == FORMATS
    assert get_args(plot.Style) == tuple(STYLES)
