"""What the page is given."""

import json
import math
import sys
from dataclasses import replace

import pytest

from linprobe.report.payload import payload
from linprobe.report.style import CONTROL_LOOKS, DARK, LIGHT, NETWORK
from tests.support.records import (
    checkpoint_record,
    control_record,
    dataset_record,
    evaluation_record,
    probe_record,
    run_config,
    run_record,
    step_record,
    trained_run,
)


def with_evaluations(checkpoint, **changes):
    found = evaluation_record(**changes)
    return replace(
        checkpoint, probes=tuple(replace(probe, evaluation=found) for probe in checkpoint.probes)
    )


def roles(found, checkpoint=0, measure=0):
    """Traces of a figure by what they are; of several the last."""
    return {t["meta"]: t for t in found["checkpoints"][checkpoint]["figures"][measure]["traces"]}


def test_a_bare_run_has_errors_and_cross_entropy():
    found = payload(
        run_record(checkpoint_record([0.1, 0.2, 0.3]), config=run_config(skip_layer="logits"))
    )
    assert found["layers"] == ["input", "layer1", "logits"]
    labels = [item["label"] for item in found["measures"]]
    assert labels == ["test error", "training error", "test cross-entropy"]
    first = found["checkpoints"][0]["probes"][0]
    assert first["values"] == [[0.1, "0.1000"], [0.08, "0.0800"], [0.3, "0.3000"]]
    assert "confusion" not in first
    assert "optimum" not in roles(found)
    assert not first["failed"]
    assert found["frame"]["layout"]["annotations"][0]["text"] == "skip enters logits"
    assert found["classes"] is None
    named = run_record(checkpoint_record([0.1]), dataset=dataset_record(classes=("cat", "dog")))
    assert payload(named)["classes"] == ["cat", "dog"]


def test_zero_errors_have_a_place_on_a_logarithmic_scale():
    measures = payload(run_record(checkpoint_record([0.0])))["measures"]
    assert measures[0]["floor"] == 0.5 / 10_000
    assert measures[1]["floor"] == pytest.approx(0.5 / 60_000, rel=1e-5)
    measures = payload(run_record(checkpoint_record([0.0]), dataset=dataset_record(num_test=0)))[
        "measures"
    ]
    assert measures[0]["floor"] == 1e-5


def test_layers_keep_their_place_over_checkpoints():
    first = checkpoint_record([0.1, 0.2, 0.3])
    second = checkpoint_record([0.1, 0.2], "later", 5, probes=(probe_record(0, "extra"),))
    found = payload(run_record(first, replace(second, probes=second.probes + first.probes[2:])))
    assert found["layers"] == ["input", "layer1", "logits", "extra"]
    assert [probe["place"] for probe in found["checkpoints"][1]["probes"]] == [3, 2]


def test_evaluation_adds_measures_facts_and_confusion():
    found = payload(run_record(with_evaluations(checkpoint_record([0.25, 0.25]))))
    labels = [item["label"] for item in found["measures"]]
    assert {"V-information", "compression by MDL", "calibration error"} < set(labels)
    probe = found["checkpoints"][0]["probes"][0]
    assert probe["values"][labels.index("compression by MDL")] == [2, "2.0000"]
    assert probe["confusion"] == [[3, 1, 0], [1, 3, 0], [0, 0, 0]]
    assert probe["classErrors"] == ["0.2500", "0.2500", "none"]
    assert probe["mistakes"] == ["0 \N{RIGHTWARDS ARROW} 1 (1)", "1 \N{RIGHTWARDS ARROW} 0 (1)"]
    facts = dict(zip(found["facts"], probe["facts"], strict=True))
    assert facts["range of the exact optimum"] == "0.1250\N{EN DASH}0.3750"
    assert facts["MDL, bits"] == "60"
    assert facts["top-2 error"] == "0.1250"
    assert facts["top-5 error"] is None
    assert "optimum" in roles(found)


def test_large_confusion_matrices_leave_their_worst_mistakes():
    confusion = tuple(tuple(i * j for j in range(400)) for i in range(400))
    checkpoint = with_evaluations(checkpoint_record([0.2]), confusion=confusion)
    found = payload(run_record(checkpoint))["checkpoints"][0]["probes"][0]
    assert found["confusion"] is None
    assert found["mistakes"][0] == "398 \N{RIGHTWARDS ARROW} 399 (158,802)"
    assert len(found["mistakes"]) == 5


def test_mistakes_of_a_record_without_a_matrix():
    changes = {"confusion": (), "class_counts": (3,) * 200, "mistakes": ((4, 5, 7), (1, 2, 3))}
    checkpoint = with_evaluations(checkpoint_record([0.2]), **changes)
    found = payload(run_record(checkpoint))["checkpoints"][0]["probes"][0]
    assert found["confusion"] is None
    assert found["mistakes"] == ["4 \N{RIGHTWARDS ARROW} 5 (7)", "1 \N{RIGHTWARDS ARROW} 2 (3)"]


def test_steps_belong_to_the_later_layer():
    checkpoint = checkpoint_record([0.1, 0.2, 0.3], steps=(step_record(),))
    found = payload(run_record(checkpoint))["checkpoints"][0]
    assert [sorted(probe["steps"]) for probe in found["probes"]] == [[], ["0"], []]
    verdict, sentence = found["probes"][1]["steps"]["0"]
    assert verdict == "falls"
    assert sentence.startswith("Against input, the layer before: falls (30 ")
    assert "1 significant drop, 0 significant rises" in found["steps"][0]


def test_a_layer_is_told_what_stands_beside_it():
    draws = (
        control_record(test_error_rate=0.8, selectivity=0.7),
        control_record(test_error_rate=0.9, selectivity=0.9, repeat=1),
        control_record("majority", None, test_error_rate=0.5),
        control_record("mine", "logits", selectivity=None),
    )
    found = payload(run_record(checkpoint_record([0.1, 0.2, 0.3], controls=draws)))
    checkpoint = found["checkpoints"][0]
    shuffled, majority = CONTROL_LOOKS["shuffled_labels"].label, CONTROL_LOOKS["majority"].label
    assert checkpoint["beside"] == [NETWORK.label, shuffled, majority, "mine"]
    range_ = "0.8000\N{EN DASH}0.9000"
    assert [probe["beside"] for probe in checkpoint["probes"]] == [
        ["0.9000", None, "0.5000", None],
        ["0.9000", f"0.8500, mean of 2 ({range_}), selectivity 0.8000", "0.5000", None],
        ["0.9000", None, "0.5000", "0.9000"],
    ]
    nothing = checkpoint_record([0.1], network_test_error_rate=math.nan)
    assert (
        payload(run_record(nothing, dataset=dataset_record(majority_error_rate=None)))[
            "checkpoints"
        ][0]["beside"]
        == []
    )


def test_the_key_lists_each_look_once_and_figures_number_theirs():
    checkpoint = checkpoint_record([0.1, 0.2, 0.3], steps=(step_record(0.9),))
    found = payload(run_record(checkpoint, replace(checkpoint, name="b", steps=())))
    assert [item["label"] for item in found["key"]] == [
        "probe, certified optimum",
        "no change found",
        "the network's own error, 0.9000",
        "majority-class baseline, 0.8865",
        "majority-class baseline, 0.8876",
        "other checkpoints",
    ]
    first, second = found["checkpoints"]
    assert first["figures"][0]["key"] == [0, 1, 2, 3, 5]
    assert second["figures"][0]["key"] == [0, 2, 3, 5]
    assert second["figures"][1]["key"] == [0, 4, 5]
    assert found["key"][5]["toggle"] == "others"
    assert "var(--muted)" in found["key"][5]["swatch"]


def test_traces_have_colours_by_name_and_raw_values():
    found = payload(run_record(checkpoint_record([0.5, 0.0, 0.001])))
    drawn = roles(found)
    assert drawn["probes"]["y"] == [0.5, 0, 0.001]
    assert drawn["probes"]["marker"]["color"] == "@blue"
    assert drawn["curve"]["x"] == [0, 1, None, 1, 2, None]
    assert drawn["interval"]["line"]["color"] == "@blue/0.75"
    assert drawn["targets"]["text"][0].startswith("\ntest error 0.5000\n95 % interval")
    assert [measure["log"] for measure in found["measures"]] == [True, True, False]
    assert found["measures"][0]["others"][0]["text"] == ["", "", "untrained"]


def test_numbers_are_rounded_and_nan_is_null():
    lost = probe_record(rate=math.nan, status="nonfinite_features", duality_gap=math.nan)
    third = probe_record(1, "layer1", rate=1 / 3)
    found = payload(run_record(checkpoint_record([], probes=(lost, third))))
    text = json.dumps(found, allow_nan=False)
    first, second = found["checkpoints"][0]["probes"]
    assert first["values"][0] == [None, "none"]
    assert first["cells"][2] == [None, "none"]
    assert second["values"][0] == [0.333333, "0.3333"]
    assert "0.3333333" not in text


def test_every_look_has_a_colour_by_day_and_by_night():
    assert set(LIGHT) == set(DARK)
    looks = [NETWORK, *CONTROL_LOOKS.values()]
    assert {look.colour for look in looks} <= set(LIGHT)
    assert len({(look.colour, look.dash) for look in looks}) == len(looks)
    names = {"shuffled_labels", "control_task", "untrained", "random_features", "input", "majority"}
    assert set(CONTROL_LOOKS) == names


def test_trained_probes_are_told_from_failed_ones():
    content = payload(trained_run("early_stop", "converged", "diverged"))
    probes = content["checkpoints"][0]["probes"]
    assert [probe["failed"] for probe in probes] == [False, False, True]
    assert "probe, trained by SGD" in [item["label"] for item in content["key"]]
    assert content["columns"][9]["label"] == "epochs"
    assert payload(run_record(checkpoint_record([0.1])))["columns"][9]["label"] == "passes"


def test_work_grows_with_the_number_of_probes_and_not_faster():
    """Counted in calls of Python functions, so that no clock has a say."""

    def calls(num_probes):
        probes = tuple(probe_record(i, f"block.{i}", 0.1) for i in range(num_probes))
        run, count = run_record(checkpoint_record([], probes=probes)), 0

        def called(*_):
            nonlocal count
            count += 1

        sys.setprofile(called)
        try:
            payload(run)
        finally:
            sys.setprofile(None)
        return count

    assert calls(400) < 2.5 * calls(200)
