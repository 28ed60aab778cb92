"""The tables of docs/figures.md, from runs whose numbers are known."""

import sys
from dataclasses import replace

import pytest

from benchmarks import paper_tables
from linprobe.records.store import save
from tests.support.records import checkpoint_record, evaluation_record, run_config, run_record

STEPS = (("untrained", 0), ("step500", 500), ("step2000", 2000))


def run_of(rates, protocol="certified", open_=3):
    checkpoints = []
    for name, step in STEPS:
        checkpoint = checkpoint_record(rates, name, step)
        evaluation = evaluation_record(num_undecided=open_)
        probes = tuple(replace(probe, evaluation=evaluation) for probe in checkpoint.probes)
        if step:  # one layer read in float64, at half the error
            own = replace(probes[64], seconds=0.25)
            again = replace(own, native=own, test_error_rate=0.2, l2=1e-12)
            probes = (*probes[:64], again, *probes[65:])
        checkpoints.append(replace(checkpoint, probes=probes))
    config = run_config(depth=128, skip_layer="layer65")
    changes = {"experiment": "fig8", "protocol": protocol, "config": config}
    return run_record(*checkpoints, **changes)


@pytest.fixture
def printed(tmp_path, monkeypatch, capsys):
    """Runs the command on runs of these names: its lines."""

    def lines(**runs):
        for name, run in runs.items():
            save(run, tmp_path / name)
        folders = [str(tmp_path / name) for name in runs]
        monkeypatch.setattr(sys, "argv", ["paper_tables", *folders])
        paper_tables.main()
        return capsys.readouterr().out.splitlines()

    return lines


def test_figure8_beside_the_published_bars(printed):
    rates = [0.4] * 130
    lines = printed(ours=run_of(rates), sgd=run_of([0.5] * 130, "sgd"))
    (row,) = (line for line in lines if line.startswith("| layer9 | .327"))
    # Train errors, which the made-up records have at .8 of the test errors.
    assert row.split(" | ")[1:4] == [".327", ".320", ".400"]
    assert any("untrained | sgd | ours | 0.080" in line for line in lines)
    assert any("none for 0 of 390 probes, median 3, largest 3" in line for line in lines)
    line = "step500: layer64 read in float64, from .2000 to .2000; in float32 from .4000 to .4000"
    assert line in lines
    assert any("read in float64: 2, for 1.00 times" in line for line in lines)
    assert any("below 1e-9 for 2" in line for line in lines)
    (row,) = (line for line in lines if line.startswith("| layer32 | .4000"))
    assert row == "| layer32 | .4000 | .4000 | .4000 |"


def test_rises_are_told_of_figure5(printed):
    names = ("input", "conv1_preact", "conv1_postact")
    checkpoints = []
    for name, step in STEPS[:2]:
        made = checkpoint_record([0.1, 0.2, 0.1], name, step)
        probes = [
            replace(p, layer=layer, evaluation=evaluation_record())
            for layer, p in zip(names, made.probes, strict=True)
        ]
        checkpoints.append(replace(made, probes=tuple(probes)))
    run = run_record(*checkpoints, experiment="fig5", config=run_config(chart="curve"))
    lines = printed(fig5=run)
    assert "untrained, fig5: error rises at conv1_preact (0.1000 to 0.2000)" in lines
    assert any(line.startswith("| input | .08 | .1000 | 3e-05 |") for line in lines)
