"""The guide's code runs as it stands."""

import re
from pathlib import Path

import torch

GUIDE = Path(__file__).parent.parent / "docs" / "any-network.md"


def test_every_block_of_the_guide_runs(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.M | re.S)
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
