"""Names that tell runs apart."""

from dataclasses import replace
from pathlib import Path

import pytest

from linprobe.records.comparison.labels import labels
from linprobe.records.config import TrainingRecord
from tests.support.records import dataset_record, run_config, run_record

SGD = TrainingRecord("sgd", 0.1, 512, 0.9)


def names(*runs):
    return labels([(Path(path), (run,)) for path, run in runs])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"protocol": "sgd"}, ["certified", "sgd"]),
        ({"config": run_config(recipe="course")}, ["paper recipe", "course recipe"]),
        ({"config": run_config(recipe="paper", depth=10)}, ["a", "10 layers"]),
        ({"config": run_config(recipe="paper", float64=True)}, ["float32", "float64"]),
        (
            {"config": run_config(recipe="paper", training=SGD)},
            ["network by adam", "network by sgd"],
        ),
        ({"seed": 4}, ["seed 3", "seed 4"]),
        ({"seed": 4, "protocol": "sgd"}, ["certified, seed 3", "sgd, seed 4"]),
        ({"dataset": dataset_record(name="fashion-mnist")}, ["mnist", "fashion-mnist"]),
        ({"experiment": "fig5"}, ["fig8", "fig5"]),
        ({"quick": True}, ["a", "quick"]),
        ({}, ["a", "b"]),
    ],
)
def test_what_differs(changes, expected):
    training = None
    if "config" in changes and changes["config"].experiment.training is not None:
        training = replace(SGD, optimizer="adam")
    config = run_config(recipe="paper", training=training)
    first = run_record(config=config)
    assert names(("x/a", first), ("x/b", run_record(**{"config": config, **changes}))) == expected


def test_runs_that_share_what_differs_get_their_folder_too():
    found = names(("x/a", run_record()), ("x/b", run_record(protocol="sgd")), ("x/c", run_record()))
    assert found == ["certified (a)", "sgd", "certified (c)"]


def test_folders_of_the_same_name():
    found = names(("x/a", run_record()), ("y/a/results.json", run_record()))
    assert found == ["a (x/a)", "a (y/a)"]


def test_several_seeds_and_one_run():
    one, other = run_record(seed=0), run_record(seed=1)
    assert labels([(Path("a"), (one, other)), (Path("b"), (one,))]) == ["seeds 0, 1", "seed 0"]
    assert labels([(Path("a"), (one, other))]) == ["certified"]
