"""An experiment over several seeds; the runs are made up, but for one."""

import csv
import json

import pytest

from linprobe.cli import main as cli
from linprobe.evaluation.options import EvaluationOptions
from linprobe.experiments import seeds as over_seeds
from linprobe.experiments.figure8 import Figure8
from linprobe.experiments.seeds import run_over_seeds
from linprobe.experiments.settings import Settings
from linprobe.records.store import load_run, save
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.progress import Event, ignore
from tests.support.records import checkpoint_record, run_record


@pytest.fixture
def runner(monkeypatch):
    """A run that takes no time, and the seeds that it was called with."""
    monkeypatch.setattr(over_seeds, "save_figure", lambda figure, stem: stem)
    monkeypatch.setattr(over_seeds, "draw_comparison", lambda comparison: None)

    def run(experiment, settings, on_event, ranks):
        run.seeds.append(settings.seed)
        on_event(Event(0.5, "untrained", "solve", "half"))
        if settings.seed == run.fails_at:
            record = run_record(seed=settings.seed, complete=False)
            save(record, settings.out)
            raise LinprobeError("no luck")
        record = run_record(checkpoint_record([0.1, 0.2 + 0.1 * settings.seed]), seed=settings.seed)
        save(record, settings.out)
        return record

    run.seeds, run.fails_at = [], None
    monkeypatch.setattr(over_seeds, "run_shared", run)
    return run


WITH_CODE = {"evaluation": EvaluationOptions(mdl=True)}


def over(out, count, on_event=ignore, *, seed=0, depth=4, **changes):
    settings = Settings(out, seed=seed, **changes)
    return run_over_seeds(Figure8(depth=depth), settings, count, on_event)


def rows(out):
    with (out / "seeds.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_seed_is_a_run_and_all_are_summed_up(runner, tmp_path):
    records = over(tmp_path, 2, seed=2)
    assert runner.seeds == [record.seed for record in records] == [2, 3]
    assert [load_run(tmp_path / name).seed for name in ("seed2", "seed3")] == [2, 3]
    test = next(r for r in rows(tmp_path) if (r["layer"], r["split"]) == ("logits", "test"))
    assert float(test["mean"]) == pytest.approx(0.45)
    assert (test["n"], test["seeds"]) == ("2", "2 3")


def test_progress_is_that_of_all_seeds(runner, tmp_path):
    events = []
    over(tmp_path, 2, events.append)
    assert [(e.fraction, e.checkpoint) for e in events] == [
        (0.25, "seed 0, untrained"),
        (0.75, "seed 1, untrained"),
    ]


def test_finished_seeds_stay_when_a_later_one_fails_and_are_skipped_next_time(runner, tmp_path):
    runner.fails_at = 1
    with pytest.raises(LinprobeError, match="no luck"):
        over(tmp_path, 3)
    assert load_run(tmp_path / "seed0").complete
    assert {row["n"] for row in rows(tmp_path)} == {"1"}
    runner.fails_at, runner.seeds = None, []
    events = []
    over(tmp_path, 3, events.append)
    assert runner.seeds == [1, 2]
    assert "seed0 was finished before and is kept (overwrite=True" in events[0].text
    assert {row["seeds"] for row in rows(tmp_path)} == {"0 1 2"}
    runner.seeds = []
    assert len(over(tmp_path, 3)) == 3
    assert runner.seeds == []
    assert len(over(tmp_path, 1, seed=5)) == 4


def test_overwriting_runs_all_again(runner, tmp_path):
    over(tmp_path, 2)
    runner.seeds = []
    (tmp_path / "seed1" / "report.html").touch()
    runner.fails_at = 0
    with pytest.raises(LinprobeError, match="no luck"):
        over(tmp_path, 2, overwrite=True, **WITH_CODE)
    # An old seed must not be taken for one of the new settings.
    assert not (tmp_path / "seed1" / "results.json").exists()
    assert not (tmp_path / "seed1" / "report.html").exists()
    assert not (tmp_path / "seeds.csv").exists()
    assert json.loads((tmp_path / "seeds.json").read_text())["mdl"] is True
    runner.fails_at, runner.seeds = None, []
    over(tmp_path, 2, **WITH_CODE)
    assert runner.seeds == [0, 1]


@pytest.mark.parametrize(
    ("changes", "count", "message"),
    [
        (WITH_CODE, 2, r"holds seed0, seed1 with other settings \(mdl\).*folder, or replace"),
        (
            {"overwrite": True, **WITH_CODE},
            1,
            r"holds seed1 with other settings \(mdl\).*another folder$",
        ),
    ],
)
def test_other_settings_are_refused_before_anything_is_run(
    changes, count, message, runner, tmp_path
):
    over(tmp_path, 2)
    runner.seeds = []
    with pytest.raises(LinprobeError, match=message):
        over(tmp_path, count, **changes)
    assert runner.seeds == []
    assert load_run(tmp_path / "seed0").complete
    assert len(rows(tmp_path)) == 4


def test_other_depths_and_unknown_settings(runner, tmp_path):
    over(tmp_path, 1)
    with pytest.raises(LinprobeError, match=r"\(depth\)"):
        over(tmp_path, 1, depth=6)
    (tmp_path / "seeds.json").unlink()
    with pytest.raises(LinprobeError, match=r"\(settings that it doesn't say\)"):
        over(tmp_path, 1)
    (tmp_path / "seeds.json").write_text("{")
    with pytest.raises(LinprobeError, match=r"seeds\.json can't be read"):
        over(tmp_path, 1)


def test_a_folder_that_is_a_run_itself(runner, tmp_path):
    save(run_record(), tmp_path)
    with pytest.raises(LinprobeError, match="already holds a run"):
        over(tmp_path, 2)
    over(tmp_path, 2, overwrite=True)
    assert not (tmp_path / "results.json").exists()


def test_from_the_command_line(monkeypatch, tmp_path, capsys):
    def run(experiment, settings, on_event, ranks):
        record = run_record(
            checkpoint_record([0.1, 0.2 + 0.1 * settings.seed]), seed=settings.seed, quick=True
        )
        on_event(Event(0.5, "untrained", "solve", "half", milestone=True))
        save(record, settings.out)
        return record

    monkeypatch.setattr(over_seeds, "run_shared", run)
    arguments = f"reproduce fig8 --quick --depth 2 --seed 4 --seeds 2 --threads 1 --out {tmp_path}"
    assert cli.main(arguments.split()) == 0
    captured = capsys.readouterr()
    assert "n = 2, seeds 4, 5" in captured.out
    row = next(line for line in captured.out.splitlines() if "logits" in line)
    assert "0.6500 0.6000-0.7000" in row
    assert "seed 5: 2 of 2 probes converged" in captured.out
    assert "QUICK RUN: a smoke test, not a result" in captured.out
    assert "[ 75%] seed 5, untrained: half" in captured.err
    names = {path.name for path in tmp_path.iterdir()}
    figures = {f"figure_seeds_{s}.{kind}" for s in ("test", "train") for kind in ("png", "svg")}
    assert names == {"seed4", "seed5", "seeds.csv", "seeds.json", *figures}
    assert cli.main(arguments.replace("depth 2", "depth 4").split()) == 2
    assert "other settings (depth)" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "x"])
def test_bad_numbers_of_seeds(text, tmp_path, capsys):
    assert cli.main(["reproduce", "fig5", "--seeds", text, "--out", str(tmp_path / "x")]) == 2
    assert f"--seeds: '{text}' given; expected a whole number from 1 on" in capsys.readouterr().err
