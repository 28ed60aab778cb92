"""Flags made of a dataclass of options."""

import importlib
import sys
from dataclasses import dataclass, field
from typing import Annotated

import pytest
from cyclopts import App, CycloptsError, Parameter

from linprobe.cli.flags import COUNT, as_options, flag, names, options_of


def test_names_in_braces_stay_together():
    assert names("a, layer.{0,3..6}.q ,b{c,d}") == ("a", "layer.{0,3..6}.q", "b{c,d}")


@dataclass(frozen=True)
class Options:
    """Options of a test.

    Attributes:
        size: of a thing.
        words: to say.
        loud: whether to shout.
        hidden: not on the command line.
    """

    size: int = 3
    words: tuple[str, ...] = field(default_factory=lambda: ("a",))
    loud: bool = False
    hidden: object = None


Flags = options_of(Options(), "test", size=COUNT, words=flag(names, "WORDS", name="say"), loud=bool)


def read(text):
    app = App("test", default_parameter=Parameter(negative="", allow_repeating=True))

    @app.default
    def command(*, options: Flags = Options(), plain: Annotated[int, COUNT] = 1):
        return options, plain

    _, bound, _ = app.parse_args(text.split(), print_error=False, exit_on_error=False)
    return {name: as_options(value) for name, value in bound.arguments.items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("--plain 2", {"plain": 2}),
        ("--size 4", {"options": Options(4)}),
        ("--say b,c --loud", {"options": Options(words=("b", "c"), loud=True)}),
        ("--say=b --size 1 --size 2", {"options": Options(2, ("b",))}),
    ],
)
@pytest.mark.parametrize("pydantic", [False, True])
def test_flags_make_the_options_themselves(text, expected, pydantic, monkeypatch):
    """The library checks values by pydantic where some other module has loaded it."""
    if pydantic:
        importlib.import_module("pydantic")
    else:
        monkeypatch.delitem(sys.modules, "pydantic", raising=False)
    assert read(text) == expected


@pytest.mark.parametrize("text", ["--size 0", "--size x", "--hidden 1", "--no-loud", "--words a"])
def test_others_are_refused(text):
    with pytest.raises(CycloptsError):
        read(text)
