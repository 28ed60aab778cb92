"""Code in the guide and in README runs as it stands."""

import re
from pathlib import Path

import pytest
import torch
from tiny import tiny_dataset

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "docs" / "any-network.md"


def blocks_of(path, language):
    pattern = rf"^```{language}\n(.*?)^```"
    return re.findall(pattern, path.read_text(encoding="utf-8"), re.M | re.S)


def test_every_block_of_the_guide_runs(tmp_path, monkeypatch, capsys):
    blocks = blocks_of(GUIDE, "python")
    assert len(blocks) >= 6
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, GUIDE.name, "exec"), names)
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
