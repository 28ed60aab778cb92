"""Flags of the command line, made of the options that Python takes."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field, fields, make_dataclass
from typing import Annotated, Any

from cyclopts import Parameter, Token

MODEL = "__model__"


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


def options_of(model: type, group: str, **flags: object) -> Any:
    """Make an annotation for some options of a dataclass, each a flag.

    Defaults and help are those of `model` and its docstring; a command gets a `model`.

    Args:
        model: dataclass of options.
        group: heading in the help.
        **flags: by the field's name: its `flag`, or the type of a flag that needs no reading.
    """
    known = {option.name: option for option in fields(model)}
    rows = [
        (
            name,
            Annotated[object, kind] if isinstance(kind, Parameter) else kind,
            field(default=known[name].default, default_factory=known[name].default_factory),
        )
        for name, kind in flags.items()
    ]
    namespace: dict[str, object] = {
        "__doc__": model.__doc__,
        "__module__": __name__,
        "__get_pydantic_core_schema__": classmethod(_unchecked),
        MODEL: model,
    }
    made = make_dataclass(model.__name__, rows, namespace=namespace)
    return Annotated[made, Parameter(name="*", group=group)]


def _unchecked(made: type, source: object, handler: object) -> object:
    """Accept a `model` too: where pydantic is loaded, defaults are checked by their annotation."""
    from pydantic_core import core_schema

    return core_schema.any_schema()


def as_model(value: object) -> object:
    """Turn what was read by `options_of` into the options themselves; leave the rest as it is."""
    model = getattr(value, MODEL, None)
    if model is None:
        return value
    return model(**{option.name: getattr(value, option.name) for option in fields(value)})  # type: ignore[arg-type]


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
FROM_ZERO = flag(_number(int, lambda n: n >= 0, "a whole number from 0 on"), "N")
DEPTH = flag(
    _number(int, lambda n: n >= 2 and n % 2 == 0, "an even number of layers, 2 or more"), "N"
)
positive = _number(float, lambda x: 0 < x < math.inf, "a positive number")
POSITIVE = flag(positive, "X")
FRACTION = flag(_number(float, lambda x: 0 <= x <= 1, "a number from 0 to 1"), "X")
BELOW_ONE = flag(_number(float, lambda x: 0 <= x < 1, "a number from 0 on and below 1"), "X")


def names(text: str) -> tuple[str, ...]:
    """Read names separated by commas."""
    return tuple(name.strip() for name in text.split(","))


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
