"""Runs of several seeds in one folder."""

import csv
import math
from dataclasses import replace

import pytest

from linprobe.records.config import ControlsRecord
from linprobe.records.seeds import SEEDS_CSV, load_seeds, save_seeds, seed_words, spread
from linprobe.records.store import load_run, seed_folders
from linprobe.records.store import save as save_run
from linprobe.runtime.errors import LinprobeError
from tests.support.records import checkpoint_record, dataset_record, run_config, run_record


def save(folder, seed, rates=(0.1, 0.2), **changes):
    run = run_record(checkpoint_record(list(rates)), seed=seed, **changes)
    save_run(run, folder / f"seed{seed}")
    return run


def test_spread():
    found = spread([0.1, 0.2, 0.6])
    assert found.mean == pytest.approx(0.3)
    assert found.sd == pytest.approx(math.sqrt((0.04 + 0.01 + 0.09) / 2))
    assert (found.low, found.high, found.n) == (0.1, 0.6, 3)
    assert math.isnan(spread([0.1]).sd)
    lost = spread([0.1, math.nan])
    assert math.isnan(lost.mean) and math.isnan(lost.high) and lost.n == 2


@pytest.mark.parametrize(
    ("seeds", "words"),
    [([3], "seed 3"), ([2, 0, 1], "seeds 0 to 2"), ([0, 1], "seeds 0, 1"), ([0, 2, 3], "0, 2, 3")],
)
def test_seeds_in_words(seeds, words):
    assert seed_words([run_record(seed=seed) for seed in seeds]).endswith(words)


def test_loads_by_number_and_leaves_unfinished_ones_out(tmp_path):
    for seed in (10, 2, 0):
        save(tmp_path, seed)
    save(tmp_path, 4, complete=False)
    (tmp_path / "seedling").mkdir()
    (tmp_path / "seedling" / "results.json").write_text("x")
    assert [path.name for path in seed_folders(tmp_path)] == ["seed0", "seed2", "seed4", "seed10"]
    assert [run.seed for run in load_seeds(tmp_path)] == [0, 2, 10]


def test_seeds_of_probes_and_controls_may_differ(tmp_path):
    for seed in (0, 1):
        config = replace(run_config(depth=4), controls=ControlsRecord(seed=seed))
        save(tmp_path, seed, config=config)
    assert len(load_seeds(tmp_path)) == 2


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"config": run_config(recipe="course")}, r"experiment\.recipe, experiment\.skip_layer"),
        ({"protocol": "sgd"}, "protocol"),
        ({"quick": True}, "quick"),
        ({"dataset": dataset_record(name="other", num_train=9)}, "dataset, num_train"),
        ({"rates": (0.1, 0.2, 0.3)}, "layers"),
    ],
)
def test_other_differences_are_errors(changes, name, tmp_path):
    save(tmp_path, 0)
    save(tmp_path, 1, **changes)
    with pytest.raises(LinprobeError, match=rf"seed1 and .*seed0 differ in {name}.*seed alone"):
        load_seeds(tmp_path)


def test_nothing_complete(tmp_path):
    save(tmp_path, 0, complete=False)
    with pytest.raises(LinprobeError, match="holds no complete run of any seed"):
        load_seeds(tmp_path)


def test_the_table(tmp_path):
    runs = [save(tmp_path, seed, (0.1, 0.2 + 0.1 * seed)) for seed in (0, 1)]
    bad = replace(runs[1].checkpoints[0].probes[0], status="x", test_error_rate=math.nan)
    probes = (bad, runs[1].checkpoints[0].probes[1])
    runs[1] = replace(runs[1], checkpoints=(replace(runs[1].checkpoints[0], probes=probes),))
    save_seeds(runs, tmp_path)
    with (tmp_path / SEEDS_CSV).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["layer"], row["split"]) for row in rows] == [
        *(("input", "test"), ("input", "train"), ("logits", "test"), ("logits", "train"))
    ]
    assert (rows[0]["mean"], rows[0]["max"], rows[0]["num_converged"]) == ("", "", "1")
    found = [float(rows[2][name]) for name in ("mean", "sd", "min", "max", "n")]
    assert found == pytest.approx([0.25, 0.1 / math.sqrt(2), 0.2, 0.3, 2])
    assert float(rows[3]["mean"]) == pytest.approx(0.8 * 0.25)
    assert rows[2]["seeds"] == "0 1"


def test_reading_such_a_folder_as_one_run_names_its_runs(tmp_path):
    save(tmp_path, 0)
    save(tmp_path, 1)
    for path in (tmp_path, tmp_path / "results.json"):
        with pytest.raises(LinprobeError, match=r"several seeds; expected one of them: .*seed0, "):
            load_run(path)
    save_run(run_record(seed=9), tmp_path)
    assert load_run(tmp_path).seed == 9
