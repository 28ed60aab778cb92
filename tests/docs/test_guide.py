"""Code in the guides and in README runs as it stands."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from linprobe.records.evidence import CONTROLS, Evaluation
from tests.support.tiny import tiny_dataset

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def blocks_of(path, language):
    pattern = rf"^```{language}\n(.*?)^```"
    return re.findall(pattern, path.read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs all blocks of a guide, one after the other; returns the names that they leave."""
    monkeypatch.chdir(tmp_path)

    def run_blocks(guide, least):
        blocks = blocks_of(DOCS / guide, "python")
        assert len(blocks) >= least
        torch.manual_seed(0)
        names: dict[str, object] = {}
        for block in blocks:
            exec(compile(block, guide, "exec"), names)
        return names

    return run_blocks


def test_any_network(run, tmp_path, capsys):
    names = run("any-network.md", 6)
    printed = capsys.readouterr().out
    assert "MaxPool2d" in printed and "3 of 3 probes converged" in printed
    assert (tmp_path / "my-run" / "results.json").exists()
    assert names["logits"].shape == (100, 10) and names["report"]["pixels"].record.converged


def rows(report):
    """Layer and number of features of each row of a printed report, and what was concluded."""
    table = re.findall(r"^ (\S+) +([\d,]+) .* (\S+)$", report, re.M)
    return table, re.findall(r"^\d of \d probes converged", report, re.M)


@pytest.mark.slow
def test_readmes_stranger_prints_what_readme_shows(monkeypatch, capsys):
    """On less data, so with other errors."""
    pytest.importorskip("transformers")
    (block,), (shown,) = (blocks_of(ROOT / "README.md", kind) for kind in ("python", "text"))
    asked = []
    monkeypatch.setattr("linprobe.data.load", lambda name: asked.append(name) or tiny_dataset())
    exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert asked == ["fashion-mnist"]
    assert rows(printed) == rows(shown) and len(rows(shown)[0]) == 4
    example = (ROOT / "examples" / "stranger.py").read_text(encoding="utf-8")
    for line in block.splitlines():
        assert line in example or "data." in line


def test_evidence(run, capsys):
    names = run("evidence.md", 6)
    printed = capsys.readouterr().out
    assert "0 1 " in printed and "shuffled_labels 1 " in printed
    assert names["code"].compression > 1
    loose, exact = (names[name].record.evaluation.num_undecided for name in ("loose", "exact"))
    assert loose > 10 > exact
    assert len(names["hardest"]) == 10
    # What is kept of each sample is what the record's mean was taken of.
    information = names["probe"].record.evaluation.v_information_bits
    assert float(names["pvi"].mean()) == pytest.approx(information, rel=1e-5)


def test_evidence_names_each_field_of_the_record():
    text = (DOCS / "evidence.md").read_text(encoding="utf-8")
    names = [field.name for field in fields(Evaluation) if field.name != "num_test"]
    for name in (*names, *CONTROLS):
        assert f"`{name}`" in text or f".{name}`" in text, name
