"""Figure 8 over seeds: runs are kept in a small table, and printed and drawn from there."""

from dataclasses import replace

import pytest

from benchmarks import seed_errors
from linprobe.records.store import save
from linprobe.runtime.errors import LinprobeError
from tests.support.records import checkpoint_record, evaluation_record, run_record


def run_of(seed, rate, **changes):
    checkpoint = checkpoint_record([rate] * 130, "untrained", 0)
    evaluation = evaluation_record(num_undecided=seed)
    probes = tuple(replace(probe, evaluation=evaluation) for probe in checkpoint.probes)
    return run_record(
        replace(checkpoint, probes=probes), **{"experiment": "fig8", "seed": seed, **changes}
    )


@pytest.fixture
def command(tmp_path, capsys):
    """Runs the command on runs, each saved in a folder; gives its lines."""

    def lines(*runs):
        for run in runs:
            save(run, tmp_path / "runs" / f"seed{run.seed}")
        given = ["--keep", str(tmp_path / "runs")] if runs else []
        places = ["--kept", str(tmp_path / "kept.csv"), "--out", str(tmp_path / "seeds.png")]
        seed_errors.main([*given, *places])
        return capsys.readouterr().out.splitlines()

    return lines


def test_seeds_are_kept_and_added_to(command, tmp_path):
    lines = command(run_of(0, 0.2))
    assert lines[0] == "seeds [0]: 130 of 130 converged, 130 leave no test sample undecided"
    lines = command(run_of(0, 0.2), run_of(1, 0.3))
    assert lines[0] == "seeds [0, 1]: 260 of 260 converged, 130 leave no test sample undecided"
    assert "| layer64 | 0.2500 (0.2000 to 0.3000) |" in lines
    assert command() == lines, "from what is kept alone"
    assert (tmp_path / "seeds.png").stat().st_size > 10_000
    assert len((tmp_path / "kept.csv").read_text().splitlines()) == 1 + 260


@pytest.mark.parametrize("changes", [{"experiment": "fig5"}, {"protocol": "sgd"}, {"quick": True}])
def test_other_runs_are_refused(changes):
    with pytest.raises(LinprobeError, match="seed 3 is no complete, certified, full run of fig8"):
        list(seed_errors.rows_of(run_of(3, 0.1, **changes)))
