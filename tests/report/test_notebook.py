"""A run in a notebook."""

import base64
import math
import re

import pytest

from linprobe.report.notebook import run_html
from tests.report.test_page import Elements, evil_run
from tests.support.records import checkpoint_record, probe_record, run_record, trained_run


def test_a_run_is_a_picture_and_a_row_for_each_probe():
    text = run_html(run_record(checkpoint_record([0.1, 0.2])))
    (data,) = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="Test error', text)
    assert base64.b64decode(data).startswith(b"\x89PNG")
    rows = re.findall(r"<tr>(.*?)</tr>", text)
    assert len(rows) == 3
    for part in ("input", "0.1000", "0.0943\N{EN DASH}0.1060", "1e-6", "3.0e-5", "certified"):
        assert f"<td>{part}</td>" in rows[1]
    assert "2 of 2 probes are certified optima" in text
    assert "<details open>" in text


def test_names_from_users_are_never_markup():
    text = run_html(evil_run())
    tags = [tag for tag, _ in Elements(text).tags]
    assert tags.count("img") == 1
    assert "script" not in tags
    assert "alert(2)" in Elements(text).text


def test_checkpoints_are_named_where_there_are_several():
    run = run_record(checkpoint_record([0.1]), checkpoint_record([0.2], "trained", 9))
    assert "<td>input (trained)</td>" in run_html(run)


def test_long_tables_are_folded():
    assert "<details><summary>31 probes</summary>" in run_html(
        run_record(checkpoint_record([0.1] * 31))
    )


@pytest.mark.parametrize("run", [run_record(), run_record(checkpoint_record([]))])
def test_a_run_without_probes_has_no_picture(run):
    assert "<img" not in run_html(run)
    assert "0 of 0 probes" in run_html(run)


def test_lost_and_trained_probes_say_so():
    lost = probe_record(rate=math.nan, status="nonfinite_features", duality_gap=math.nan)
    text = run_html(run_record(checkpoint_record([], probes=(lost,))))
    assert "No certificate: the features hold NaN" in text
    assert "<td>trained by SGD</td>" in run_html(trained_run("early_stop"))
