"""Help texts: from the docstrings and defaults of the options, without anything heavy."""

import itertools
from dataclasses import fields

import pytest

from linprobe.activations.options import ExtractionOptions
from linprobe.cli import main as cli
from linprobe.evaluation.options import EvaluationOptions
from linprobe.records.evidence import CONTROLS

COMMANDS = ("layers", "probe", "reproduce fig5", "reproduce fig8", "report", "plot", "show")
GROUPS = ("", "reproduce")


def help_of(command, capsys, monkeypatch, flag="--help", width=100):
    monkeypatch.setenv("COLUMNS", str(width))
    assert cli.main([*command.split(), flag]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


@pytest.mark.parametrize("command", [*GROUPS, *COMMANDS, "compare"])
@pytest.mark.parametrize("width", [60, 100])
def test_every_help_has_usage_text_and_two_examples(command, width, capsys, monkeypatch):
    text = help_of(command, capsys, monkeypatch, width=width)
    assert text.startswith(f"usage: linprobe {command}".rstrip())
    about, _, examples = text.partition("\nexamples:\n")
    lines = examples.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"  linprobe {command}".rstrip()) for line in lines)
    assert all(len(line) <= width for line in about.splitlines()[1:])
    assert help_of(command, capsys, monkeypatch, "-h", width=width) == text


def test_help_may_be_asked_anywhere(capsys, monkeypatch):
    text = help_of("probe", capsys, monkeypatch)
    assert help_of("probe FACTORY --l2 1", capsys, monkeypatch) == text
    assert cli.main(["--help", "probe"]) == 0
    assert capsys.readouterr().out == text


def test_first_look_is_recommended(capsys, monkeypatch):
    for command in GROUPS:
        assert "linprobe reproduce fig8 --quick --depth 10" in help_of(command, capsys, monkeypatch)


def test_options_are_described_by_what_python_says_of_them(capsys, monkeypatch):
    text = " ".join(help_of("probe", capsys, monkeypatch).split())
    assert ExtractionOptions.__doc__ is not None
    assert EvaluationOptions.__doc__ is not None
    said = " ".join(f"{ExtractionOptions.__doc__} {EvaluationOptions.__doc__}".split())
    for words in ("samples in a forward pass", "draws of each random control"):
        assert words in said
        assert words in text
    defaults = {field.name: field.default for field in fields(ExtractionOptions)}
    assert f"(default: {defaults['batch_size']}) --memory GIB" in text
    assert f"(default: {defaults['tokens']})" in text
    assert "default: 40 % of the free memory" in text
    assert "None" not in text
    for name in CONTROLS:
        assert name in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_described(command, capsys, monkeypatch):
    lines = help_of(command, capsys, monkeypatch, width=60).splitlines()
    for line, after in itertools.pairwise(lines):
        if line.startswith("  --"):
            assert len(line) > 26 or after.startswith(" " * 26), line
