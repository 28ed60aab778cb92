"""What the page is given."""

import json
import math
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
    run_record,
    step_record,
    trained_run,
)


def with_evaluations(checkpoint, **changes):
    found = evaluation_record(**changes)
    return replace(
        checkpoint, probes=tuple(replace(probe, evaluation=found) for probe in checkpoint.probes)
    )


def references(checkpoint, **changes):
    found = payload(run_record(checkpoint, **changes))["checkpoints"][0]["references"]
    return {item["label"]: item for item in found}


def test_a_bare_run_has_errors_and_cross_entropy():
    found = payload(run_record(checkpoint_record([0.1, 0.2, 0.3])))
    assert found["layers"] == ["input", "layer1", "logits"]
    labels = [item["label"] for item in found["measures"]]
    assert labels == ["test error", "training error", "test cross-entropy"]
    first = found["checkpoints"][0]["probes"][0]
    assert first["values"] == pytest.approx([0.1, 0.08, 0.3])
    assert "evaluation" not in first
    assert first["optimum"] is None
    assert first["standing"] == "certified"
    assert found["mark"] is None
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
    assert probe["values"][labels.index("compression by MDL")] == 2.0
    assert probe["optimum"] == [0.125, 0.375]
    assert probe["evaluation"]["confusion"] == [[3, 1, 0], [1, 3, 0], [0, 0, 0]]
    assert probe["evaluation"]["classErrors"] == [0.25, 0.25, None]
    assert probe["evaluation"]["mistakes"] == [[1, 0, 1], [1, 1, 0]]
    facts = dict(zip(found["facts"], probe["evaluation"]["facts"], strict=True))
    assert facts["MDL, bits"] == 60
    assert facts["top-2 error"] == 0.125
    assert facts["top-5 error"] is None


def test_large_confusion_matrices_leave_their_worst_mistakes():
    confusion = tuple(tuple(i * j for j in range(400)) for i in range(400))
    checkpoint = with_evaluations(checkpoint_record([0.2]), confusion=confusion)
    found = payload(run_record(checkpoint))["checkpoints"][0]["probes"][0]["evaluation"]
    assert found["confusion"] is None
    assert found["mistakes"][0] == [399 * 398, 398, 399]
    assert len(found["mistakes"]) == 5


def test_steps_belong_to_the_later_layer():
    checkpoint = checkpoint_record([0.1, 0.2, 0.3], steps=(step_record(),))
    found = payload(run_record(checkpoint))["checkpoints"][0]
    assert [probe["verdict"] for probe in found["probes"]] == [None, "falls", None]
    assert found["probes"][1]["after"] == 0
    assert "falls at 1 of 1 steps" in found["steps"]


def test_references_are_the_network_and_the_commonest_class():
    found = references(checkpoint_record([0.1, 0.2]))
    assert found[NETWORK.label]["value"] == 0.9
    assert found[CONTROL_LOOKS["majority"].label]["value"] == 0.8865
    nothing = checkpoint_record([0.1], network_test_error_rate=math.nan)
    assert references(nothing, dataset=dataset_record(majority_error_rate=None)) == {}


def test_recorded_controls_are_averaged_over_draws():
    draws = (
        control_record(test_error_rate=0.8, selectivity=0.7),
        control_record(test_error_rate=0.9, selectivity=0.9, repeat=1),
        control_record("majority", None, test_error_rate=0.5),
        control_record("mine", "logits", selectivity=None),
    )
    found = references(checkpoint_record([0.1, 0.2, 0.3], controls=draws))
    assert found[CONTROL_LOOKS["majority"].label]["value"] == 0.5
    (point,) = found[CONTROL_LOOKS["shuffled_labels"].label]["points"]
    assert point["place"] == 1
    assert point["value"] == pytest.approx(0.85)
    assert (point["low"], point["high"], point["draws"]) == (0.8, 0.9, 2)
    assert point["selectivity"] == pytest.approx(0.8)
    assert found["mine"]["points"][0]["selectivity"] is None


def test_numbers_are_rounded_and_nan_is_null():
    lost = probe_record(rate=math.nan, status="nonfinite_features", duality_gap=math.nan)
    third = probe_record(1, "layer1", rate=1 / 3)
    found = payload(run_record(checkpoint_record([], probes=(lost, third))))
    text = json.dumps(found, allow_nan=False)
    first, second = found["checkpoints"][0]["probes"]
    assert first["test"] is None
    assert first["interval"] == [None, None]
    assert second["test"] == 0.333333
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
    assert [probe["standing"] for probe in probes] == ["trained", "certified", "failed"]
    assert content["looks"]["trained"]["label"] == "probe, as minibatches left it"
    assert content["passes"] == "epochs"
    assert payload(run_record(checkpoint_record([0.1])))["passes"] == "passes"
