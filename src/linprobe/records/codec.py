"""Dataclasses to and from JSON, with a message that names the field where a value doesn't fit.

A float that is not finite is written as null, which JSON has, and read back as NaN. Fields that
a dataclass does not know are skipped; a missing one is an error unless it has a default.
"""

import math
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from linprobe.runtime.errors import LinprobeError


class FieldError(LinprobeError):
    """A value that does not fit its field."""


def to_json(value: Any) -> Any:
    """Reduce dicts, lists and tuples to JSON types, with null for numbers JSON can't hold."""
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def from_json(kind: Any, value: Any, place: str = "") -> Any:
    """Build a value of the annotated type `kind` from parsed JSON.

    Args:
        kind: a dataclass, or the annotation of a field of one: float, int, str, bool, Any,
            tuple, dict, or one of these ``| None``.
        value: what `json.loads` gave.
        place: where it stands, for messages; "" at the root.

    Raises:
        FieldError: A field is missing or has another type; the message names it.
    """
    if is_dataclass(kind):
        return _record_from_json(kind, value, place)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if value is None else from_json(arguments[0], value, place)
    if origin is tuple:
        return _tuple_from_json(arguments, value, place)
    if origin is dict:
        _expect(isinstance(value, dict), place, "an object", value)
        return {key: from_json(arguments[1], item, f"{place}.{key}") for key, item in value.items()}
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        _expect(value is None or number, place, "a number or null", value)
        return math.nan if value is None else float(value)
    if kind is int:
        _expect(isinstance(value, int) and not isinstance(value, bool), place, "an integer", value)
    elif kind is not Any:
        _expect(isinstance(value, kind), place, _NAMES[kind], value)
    return value


_NAMES = {str: "a string", bool: "true or false"}


def _record_from_json(kind: Any, value: Any, place: str) -> Any:
    _expect(isinstance(value, dict), place, "an object", value)
    hints = typing.get_type_hints(kind)
    known = {}
    for item in fields(kind):
        where = f"{place}.{item.name}".lstrip(".")
        if item.name in value:
            known[item.name] = from_json(hints[item.name], value[item.name], where)
        elif item.default is MISSING:
            raise FieldError(f"{where} is missing; the file is damaged or was edited")
    return kind(**known)


def _tuple_from_json(arguments: tuple[Any, ...], value: Any, place: str) -> Any:
    _expect(isinstance(value, list), place, "a list", value)
    if arguments[-1] is Ellipsis:
        arguments = arguments[:1] * len(value)
    _expect(len(value) == len(arguments), place, f"a list of {len(arguments)}", value)
    pairs = zip(arguments, value, strict=True)
    return tuple(from_json(kind, item, f"{place}[{i}]") for i, (kind, item) in enumerate(pairs))


def _expect(fits: bool, place: str, expected: str, value: Any) -> None:
    if not fits:
        shown = repr(value)[:60]
        if isinstance(value, dict | list):
            shown = "an object" if isinstance(value, dict) else "a list"
        raise FieldError(f"{place or 'the root'} is {shown}; expected {expected}")
