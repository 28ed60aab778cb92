"""Dataclasses to JSON and back, and what is said of values that don't fit."""

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from linprobe.records.codec import FieldError, Number, from_json, to_json


@dataclass(frozen=True)
class Inner:
    number: Number
    pair: tuple[Number, Number]


@dataclass(frozen=True)
class Outer:
    name: str
    count: int
    flag: bool
    note: str | None
    free: dict[str, Any]
    table: dict[str, Number]

    inners: tuple[Inner, ...]
    either: str | int | None = None
    late: int = 7
    kind: Literal["curve", "bars"] = "curve"


VALUE = Outer(
    "a", 2, True, None, {"x": [1, {"y": None}]}, {"s": 1.5}, (Inner(1.0, (0.0, 2.0)),), late=8
)


def plain(value=VALUE):
    return json.loads(json.dumps(to_json(value), allow_nan=False))


def test_round_trip():
    assert from_json(Outer, plain()) == VALUE


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_nonfinite_numbers_become_null_and_nan(number):
    data = plain(Outer("a", 2, True, "n", {"deep": [number]}, {}, (Inner(number, (number, 1.0)),)))
    assert data["inners"] == [{"number": None, "pair": [None, 1.0]}]
    assert data["free"] == {"deep": [None]}
    assert math.isnan(from_json(Outer, data).inners[0].number)


def test_integers_serve_as_floats_but_not_the_reverse():
    data = plain()
    data["table"]["s"] = 3
    assert from_json(Outer, data).table == {"s": 3.0}
    data["count"] = 2.0
    with pytest.raises(FieldError, match=r"count is 2\.0; expected an integer"):
        from_json(Outer, data)


def test_unknown_fields_are_skipped_and_defaults_fill_in():
    data = plain() | {"future": 1}
    del data["late"]
    assert from_json(Outer, data).late == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "name is 3; expected a string"),
        ({"count": True}, "count is True; expected an integer"),
        ({"flag": 1}, "flag is 1; expected true or false"),
        ({"note": 5}, "note is 5; expected a string"),
        ({"table": {"s": "x"}}, "table.s is 'x'; expected a number or null"),
        ({"table": {"s": True}}, "table.s is True; expected a number or null"),
        ({"free": []}, "free is a list; expected an object"),
        ({"inners": {}}, "inners is an object; expected a list"),
        ({"inners": [3]}, r"inners\[0\] is 3; expected an object"),
        ({"inners": [{"number": 1.0}]}, r"inners\[0\]\.pair is missing"),
        ({"inners": [{"number": 1.0, "pair": [1.0]}]}, r"inners\[0\]\.pair\[1\] is missing"),
        ({"inners": [{"number": 1, "pair": [1, 2, 3]}]}, "pair is a list; expected a list of 2"),
        ({"either": 1.5}, r"either is 1\.5; expected a string"),
        ({"kind": "lines"}, "kind is 'lines'; expected 'curve' or 'bars'"),
        ({"inners": [{"number": 1.0, "pair": [1, "x"]}]}, r"inners\[0\]\.pair\[1\] is 'x'"),
    ],
)
def test_misfits_are_named(change, message):
    with pytest.raises(FieldError, match=message):
        from_json(Outer, plain() | change)


def test_the_root_is_named():
    with pytest.raises(FieldError, match="the root is a list; expected an object"):
        from_json(Outer, [])
    with pytest.raises(ValueError, match="object"):
        to_json({"bad": object()})
