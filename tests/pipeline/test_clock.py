"""Seconds of the stages of a run."""

import torch

import linprobe


def test_stages_share_the_wall_time():
    y = torch.arange(120) % 3
    x = torch.randn(120, 6, generator=torch.Generator().manual_seed(0)) + 2 * torch.eye(6)[y]
    report = linprobe.fit_probes({"a": x, "b": x}, y, ({"a": x, "b": x}, y))
    stages = report.run.checkpoints[0].stages
    assert set(stages) == {"extract", "solve", "evaluate"}
    assert all(seconds >= 0 for seconds in stages.values())
    assert 0 < sum(stages.values()) <= report.run.seconds
