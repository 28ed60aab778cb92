"""Each test that the tables of faults name is there."""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@cache
def names_in(path):
    return re.findall(r"^def (test_\w+)", (ROOT / path).read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("page", ["reliability.md", "robustness.md"])
def test_named_tests_are_there(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    named = TEST.findall(text)
    assert len(named) > 40
    assert [pair for pair in named if pair[1] not in names_in(pair[0])] == []


@pytest.mark.parametrize("page", ["reliability.md", "robustness.md"])
def test_each_row_names_a_test(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.endswith("| test |")]
    assert rows and [row for row in rows if not TEST.search(row)] == []
