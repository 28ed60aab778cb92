"""Dataclasses to and from JSON by pydantic, with errors that name the field.

JSON has no NaN and no infinity: such a `Number` is written as null, and read back as NaN. Fields
that a dataclass does not know are skipped; a missing one is an error unless it has a default.
pydantic is imported when it is first used.
"""

import hashlib
import math
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.text import first_line

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, TypeAdapter
    from pydantic_core import CoreSchema, ErrorDetails

Record = TypeVar("Record")


class FieldError(LinprobeError):
    """A value that does not fit its field."""


class _NullIsNaN:
    """Tells pydantic to read null as NaN."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: "GetCoreSchemaHandler"
    ) -> "CoreSchema":
        from pydantic_core import core_schema

        number = handler(source)
        return core_schema.no_info_before_validator_function(
            lambda value: math.nan if value is None else value,
            number,
            json_schema_input_schema=core_schema.nullable_schema(number),
        )


Number = Annotated[float, _NullIsNaN()]
"""A float that is null in JSON where it is not finite."""


def to_json(value: Any) -> Any:
    """Reduce dataclasses, dicts and tuples to JSON types, with null for numbers JSON can't hold."""
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value, inf_nan_mode="null")


def from_json(kind: type[Record], value: Any) -> Record:
    """Build a dataclass of that kind from parsed JSON.

    Raises:
        FieldError: A field is missing or has another type; the message names it.
    """
    from pydantic import ValidationError
    from pydantic_core import to_json as dump

    try:
        # JSON mode: it takes a list for a tuple, and nothing else for anything else.
        record: Record = adapter(cast("Any", kind)).validate_json(dump(value), strict=True)
    except ValidationError as error:
        raise FieldError(_sentence(error.errors()[0], value)) from error
    except (ValueError, OverflowError, RecursionError) as error:  # too deep, or too long a number
        raise FieldError(f"the file is damaged ({first_line(error)[:200]})") from error
    return record


def to_text(record: Any) -> bytes:
    """Write a dataclass for this program alone: a checksum, and JSON with NaN and infinity."""
    from pydantic_core import to_json as dump

    text = dump(record)
    return _digest(text) + b"\n" + text


def from_text(kind: type[Record], text: bytes) -> Record:
    """Read what `to_text` wrote; raise `FieldError` where it is damaged."""
    digest, _, text = text.partition(b"\n")
    if digest != _digest(text):
        raise FieldError(f"this is no {kind.__name__} (its checksum is another one)")
    try:
        record: Record = adapter(cast("Any", kind)).validate_json(text, strict=True)
    except ValueError as error:
        raise FieldError(f"this is no {kind.__name__} ({first_line(error)})") from error
    return record


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).hexdigest().encode()


@cache
def adapter(kind: type[Any]) -> "TypeAdapter[Any]":
    """Make the pydantic adapter of a dataclass, once."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


_EXPECTED = {
    "float_type": "a number or null",
    "int_type": "an integer",
    "string_type": "a string",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "too_long": "a list of {max_length}",
    "dict_type": "an object",
    "dataclass_type": "an object",
}


def _sentence(error: "ErrorDetails", content: Any) -> str:
    """Name the field that pydantic refuses, what it holds and what was expected."""
    place, value = "", content
    for part in error["loc"]:
        inside = isinstance(part, int) if isinstance(value, list) else isinstance(value, dict)
        if not inside:
            break  # what follows names the types of a union
        place += f"[{part}]" if isinstance(part, int) else f".{part}"
        try:
            value = value[part]
        except LookupError:
            break
    place = place.removeprefix(".") or "the root"
    if error["type"] == "missing":
        return f"{place} is missing; the file is damaged or was edited"
    shown = "an object" if isinstance(value, dict) else repr(value)[:60]
    shown = "a list" if isinstance(value, list) else shown
    context = error.get("ctx", {})
    expected = _EXPECTED.get(error["type"], "").format_map(context)
    return f"{place} is {shown}; expected {expected or context.get('expected', error['msg'])}"
