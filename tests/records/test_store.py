"""Runs on disk: saved, loaded, and refused when damaged."""

import csv
import json
import math
from dataclasses import fields
from pathlib import Path

import pytest

from linprobe.records.config import LoadingRecord
from linprobe.records.schema import ProbeRecord
from linprobe.records.store import json_schema, load_run, save
from linprobe.runtime.errors import LinprobeError
from tests.support.records import (
    checkpoint_record,
    control_record,
    evaluation_record,
    probe_record,
    run_config,
    run_record,
    step_record,
)


def saved(tmp_path, run=None):
    run = run or run_record(checkpoint_record([0.1, 0.2, 0.3, 0.4]))
    save(run, tmp_path)
    return tmp_path / "results.json"


def csv_rows(folder):
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_round_trip_from_folder_and_file(tmp_path):
    run = run_record(checkpoint_record([0.1, 0.2, 0.3]), checkpoint_record([0.1, 0.1], "later", 9))
    path = saved(tmp_path, run)
    assert load_run(tmp_path) == run
    assert load_run(path) == run


def test_json_has_the_documented_shape(tmp_path):
    content = json.loads(saved(tmp_path).read_text())
    assert content["schema"] == 2
    top = "experiment protocol seed quick config dataset environment seconds peak_rss_bytes"
    assert set(top.split()) < set(content)
    checkpoint = content["checkpoints"][0]
    names = {"name", "step", "network_test_error_rate", "stages", "probes", "steps", "controls"}
    names |= {"metric_steps"}
    assert names == set(checkpoint)
    assert list(checkpoint["probes"][0]) == [item.name for item in fields(ProbeRecord)]
    assert checkpoint["probes"][0]["test_error_ci95"] == pytest.approx([0.0943, 0.106], abs=1e-3)


def test_nonfinite_values_are_null_in_json_and_empty_in_csv(tmp_path):
    probe = probe_record(rate=math.nan, status="nonfinite_features", l2=math.inf)
    run = run_record(checkpoint_record([0.1], probes=(probe,)))
    text = saved(tmp_path, run).read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    loaded = load_run(tmp_path).checkpoints[0].probes[0]
    assert math.isnan(loaded.test_error_rate)
    assert math.isnan(loaded.l2)
    assert not loaded.converged
    row = csv_rows(tmp_path)[0]
    assert row["test_error_rate"] == row["test_error_ci95_low"] == row["l2"] == ""
    assert row["status"] == "nonfinite_features"


def test_csv_has_a_row_a_probe(tmp_path):
    run = run_record(checkpoint_record([0.1, 0.2, 0.3]), checkpoint_record([0.1, 0.15], "b", 500))
    save(run, tmp_path)
    rows = csv_rows(tmp_path)
    assert [(r["checkpoint"], r["step"], r["layer"]) for r in rows] == [
        ("untrained", "0", "input"),
        ("untrained", "0", "layer1"),
        ("untrained", "0", "logits"),
        ("b", "500", "input"),
        ("b", "500", "logits"),
    ]
    assert float(rows[4]["test_error_rate"]) == 0.15
    assert float(rows[4]["test_error_ci95_low"]) < 0.15 < float(rows[4]["test_error_ci95_high"])
    assert {r["dataset"] for r in rows} == {"mnist"}
    assert None not in rows[0], "more cells than columns"


def test_failed_save_keeps_what_was_there(tmp_path):
    path = saved(tmp_path)
    before = path.read_bytes()
    config = run_config(loading=LoadingRecord("a:b", {"bad": object()}))
    with pytest.raises(ValueError, match="serialize"):
        save(run_record(config=config), tmp_path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["results.csv", "results.json"]


def damaged(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("schema", [3, None, "1"])
def test_unknown_schema_is_refused(tmp_path, schema):
    path = saved(tmp_path)
    damaged(path, lambda content: content.update(schema=schema))
    with pytest.raises(
        LinprobeError, match=rf"results\.json has schema {schema!r}; .* schema 2 and 1"
    ):
        load_run(tmp_path)


def test_damage_is_named_with_file_and_field(tmp_path):
    path = saved(tmp_path)
    damaged(path, lambda content: content["checkpoints"][0]["probes"][2].update(l2="small"))
    message = r"results\.json: checkpoints\[0\]\.probes\[2\]\.l2 is 'small'; expected a number"
    with pytest.raises(LinprobeError, match=message):
        load_run(tmp_path)


@pytest.mark.parametrize("field", ["seed", "quick", "checkpoints", "seconds"])
def test_missing_field_is_named(tmp_path, field):
    path = saved(tmp_path)
    damaged(path, lambda content: content.pop(field))
    with pytest.raises(LinprobeError, match=rf"results\.json: {field} is missing"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"schema": 2, "se', "is not valid JSON"), ("[]", "holds no JSON object")],
)
def test_files_that_are_no_record(tmp_path, text, message):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(LinprobeError, match=message):
        load_run(tmp_path)


def test_no_file_at_all(tmp_path):
    with pytest.raises(LinprobeError, match=r"results\.json can't be read \(No such file"):
        load_run(tmp_path / "results.json")


def with_evidence():
    probes = (
        probe_record(0, evaluation=evaluation_record()),
        probe_record(1, "layer1", evaluation=evaluation_record(mdl=None)),
        probe_record(2, "layer2"),
    )
    majority = control_record(
        "majority", None, seed=None, l2=None, duality_gap=None, status=None, selectivity=None
    )
    controls = (control_record(), control_record(repeat=1, seed=8), majority)
    return run_record(
        checkpoint_record([], probes=probes, steps=(step_record(),), controls=controls)
    )


def test_evidence_makes_the_round_trip(tmp_path):
    run = with_evidence()
    save(run, tmp_path)
    assert load_run(tmp_path) == run


def test_evidence_in_json_has_the_documented_shape(tmp_path):
    checkpoint = json.loads(saved(tmp_path, with_evidence()).read_text())["checkpoints"][0]
    evaluation = checkpoint["probes"][0]["evaluation"]
    assert evaluation["confusion"][0] == [3, 1, 0]
    assert evaluation["per_class_error_rate"] == [0.25, 0.25, None]
    assert evaluation["top_k_error_rate"] == {"2": 0.125}
    assert evaluation["mdl"]["blocks"] == [[2, 2.0], [6, 58.0]]
    assert evaluation["optimum_error_interval"] == [0.125, 0.375]
    assert checkpoint["steps"][0]["verdict"] == "falls"
    assert [c["layer"] for c in checkpoint["controls"]] == ["layer1", "layer1", None]
    assert checkpoint["controls"][2]["seed"] is None


def test_files_without_evidence_load(tmp_path):
    run = with_evidence()
    path = saved(tmp_path, run)

    def strip(content):
        for checkpoint in content["checkpoints"]:
            del checkpoint["steps"], checkpoint["controls"]
            for probe in checkpoint["probes"]:
                del probe["evaluation"]

    damaged(path, strip)
    checkpoint = load_run(tmp_path).checkpoints[0]
    assert checkpoint.steps == checkpoint.controls == ()
    assert [probe.evaluation for probe in checkpoint.probes] == [None] * 3
    assert checkpoint.probes[2] == run.checkpoints[0].probes[2]


def test_damaged_evidence_is_named(tmp_path):
    path = saved(tmp_path, with_evidence())

    def spoil(content):
        content["checkpoints"][0]["probes"][0]["evaluation"]["confusion"][1] = [1, "x", 0]

    damaged(path, spoil)
    with pytest.raises(LinprobeError, match=r"evaluation\.confusion\[1\]\[1\] is 'x'; expected an"):
        load_run(tmp_path)


def test_csv_has_the_numbers_of_the_evaluation(tmp_path):
    saved(tmp_path, with_evidence())
    first, second, third = csv_rows(tmp_path)
    assert (float(first["ece"]), float(first["brier"])) == (0.02, 0.3)
    assert (float(first["v_information_bits"]), float(first["mdl_bits"])) == (0.5, 60.0)
    assert float(first["optimum_error_low"]) == 0.125
    assert float(first["optimum_error_high"]) == 0.375
    assert second["mdl_bits"] == ""
    assert third["ece"] == third["optimum_error_low"] == ""
    assert "evaluation" not in first


def test_the_published_json_schema_is_this_versions():
    path = Path(__file__).parents[2] / "docs" / "results.schema.json"
    assert json.loads(path.read_text()) == json_schema(), (
        "python -m linprobe.records.store > docs/results.schema.json"
    )


def test_the_json_schema_describes_what_is_saved(tmp_path):
    content, schema = json.loads(saved(tmp_path, with_evidence()).read_text()), json_schema()
    assert set(schema["properties"]) == set(content)
    assert schema["properties"]["schema"] == {"const": content["schema"]}
    probe = schema["$defs"]["ProbeRecord"]
    assert set(probe["properties"]) == set(content["checkpoints"][0]["probes"][0])
    assert probe["properties"]["l2"]["anyOf"] == [{"type": "number"}, {"type": "null"}]
    assert {"layer", "index", "num_features", "status"} <= set(probe["required"])
