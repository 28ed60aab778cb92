"""Damaged results.json: one line, whatever is wrong with it."""

import json

import pytest

from linprobe.records.store import load_run, save
from linprobe.runtime.errors import LinprobeError
from tests.support.records import checkpoint_record, run_record

DAMAGE = {
    "deep lists": lambda text: "[" * 100_000,
    "deep objects": lambda text: '{"schema": 2, "config": ' + '{"a": ' * 100_000,
    "deep and closed": lambda text: '{"schema": 2, "config": ' + "[" * 900 + "]" * 900 + "}",
    "a long number": lambda text: text.replace('"seed": 0', '"seed": ' + "9" * 400),
    "a longer number": lambda text: text.replace('"seed": 0', '"seed": ' + "9" * 5000),
    "a long rate": lambda text: text.replace('"seconds": ', '"seconds": ' + "9" * 400, 1),
    "half": lambda text: text[: len(text) // 2],
    "no text": lambda text: "\x00" * 50,
    "no config": lambda text: without(text, "config"),
    "no method": lambda text: without(text, "config", "method"),
    "no tol": lambda text: without(text, "config", "method", "tol"),
}


def without(text, *keys):
    content = json.loads(text)
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return json.dumps(content)


@pytest.mark.parametrize("schema", [1, 2])
@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_line(name, schema, tmp_path):
    save(run_record(checkpoint_record([0.1])), tmp_path)
    path = tmp_path / "results.json"
    text = path.read_text().replace('"schema": 2', f'"schema": {schema}')
    path.write_text(DAMAGE[name](text))
    try:
        run = load_run(tmp_path)
    except LinprobeError as error:
        assert "results.json" in str(error) and "\n" not in str(error)
        assert len(str(error)) < 600
    else:  # schema 1 had these in other places, or not at all
        assert schema == 1 and name in ("no tol", "no method") and run.experiment
