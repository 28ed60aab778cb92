"""Flags of the command line, made of the options that Python takes."""

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field, fields, make_dataclass, replace
from typing import Annotated, Any

from cyclopts import Parameter, Token

from linprobe.runtime.numbers import LARGEST_SEED

DEFAULTS = "__defaults__"


def flag(read: Callable[[str], object], metavar: str, **others: Any) -> Parameter:
    """Describe a flag that takes one word.

    Args:
        read: turns the word into a value, or raises ``ValueError("expected ...")``.
        metavar: what stands for the word in the help.
        **others: as `cyclopts.Parameter` takes them, such as the flag's name where it isn't that
            of its option.
    """

    def convert(_: object, tokens: Sequence[Token]) -> object:
        return read(tokens[-1].value)  # the last one counts

    return Parameter(converter=convert, metavar=metavar, n_tokens=1, **others)


def options_of(defaults: object, group: str, **flags: object) -> Any:
    """Make an annotation for some options of a dataclass, each a flag.

    Their help is what the docstring of the dataclass says; a command gets a dataclass like
    `defaults`.

    Args:
        defaults: options as they are without any flag.
        group: heading in the help.
        **flags: by the field's name: its `flag`, or the type of a flag that needs no reading.
    """
    rows = [
        (
            name,
            Annotated[object, kind] if isinstance(kind, Parameter) else kind,
            field(default=getattr(defaults, name)),
        )
        for name, kind in flags.items()
    ]
    namespace: dict[str, object] = {
        "__doc__": type(defaults).__doc__,
        "__module__": __name__,
        "__get_pydantic_core_schema__": classmethod(_unchecked),
        DEFAULTS: defaults,
    }
    made = make_dataclass(type(defaults).__name__, rows, namespace=namespace)
    return Annotated[made, Parameter(name="*", group=group)]


def _unchecked(made: type, source: object, handler: object) -> object:
    """Accept the defaults too, which are checked by their annotation where pydantic is loaded."""
    from pydantic_core import core_schema

    return core_schema.any_schema()


def as_options(value: Any) -> Any:
    """Turn what was read by `options_of` into the options themselves; leave the rest as it is."""
    if not hasattr(value, DEFAULTS):
        return value
    read = {option.name: getattr(value, option.name) for option in fields(value)}
    return replace(getattr(value, DEFAULTS), **read)


def _number(
    kind: Callable[[str], float], fits: Callable[[float], bool], expected: str
) -> Callable[[str], float]:
    def read(text: str) -> float:
        with contextlib.suppress(ValueError):
            if fits(number := kind(text)):
                return number
        raise ValueError(f"expected {expected}")

    return read


COUNT = flag(_number(int, lambda n: n >= 1, "a whole number from 1 on"), "N")
SEED = flag(
    _number(
        int, lambda n: 0 <= n <= LARGEST_SEED, f"a whole number from 0 on, at most {LARGEST_SEED}"
    ),
    "N",
)
DEPTH = flag(
    _number(int, lambda n: n >= 2 and n % 2 == 0, "an even number of layers, 2 or more"), "N"
)
positive = _number(float, lambda x: 0 < x < math.inf, "a positive number")
POSITIVE = flag(positive, "X")
FRACTION = flag(_number(float, lambda x: 0 <= x <= 1, "a number from 0 to 1"), "X")
BELOW_ONE = flag(_number(float, lambda x: 0 <= x < 1, "a number from 0 on and below 1"), "X")


def names(text: str) -> tuple[str, ...]:
    """Read names separated by commas, but for those in braces."""
    return tuple(name.strip() for name in re.split(r",(?![^{}]*\})", text))


@contextlib.contextmanager
def cpu_threads(number: int | None) -> Iterator[None]:
    """Let PyTorch use `number` threads within the block; None: leave its choice."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
