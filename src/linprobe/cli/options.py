"""Options that several commands share: how their values are read, and what they do."""

import argparse
import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from linprobe.records.evidence import CONTROLS

if TYPE_CHECKING:
    Commands: TypeAlias = "argparse._SubParsersAction[Any]"


def whole_number(text: str, least: int, expected: str) -> int:
    """Read a whole number of at least `least`; `expected` says so in the error."""
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"{text!r} given; expected {expected}")
    return number


def seed(text: str) -> int:
    """Read the value of ``--seed``."""
    return whole_number(text, 0, "a whole number from 0 on")


def count(text: str) -> int:
    """Read how many there are to be of something, such as the value of ``--threads``."""
    return whole_number(text, 1, "a whole number from 1 on")


def positive_number(text: str) -> float:
    """Read a number above zero."""
    return _number(text, lambda number: 0 < number < math.inf, "a positive number")


def momentum(text: str) -> float:
    """Read the value of ``--momentum``."""
    return _number(text, lambda number: 0 <= number < 1, "a number from 0 on and below 1")


def slope(text: str) -> float:
    """Read the value of ``--slope``."""
    return _number(text, lambda number: 0 <= number <= 1, "a number from 0 to 1")


def _number(text: str, fits: Callable[[float], bool], expected: str) -> float:
    with contextlib.suppress(ValueError):
        if fits(number := float(text)):
            return number
    raise argparse.ArgumentTypeError(f"{text!r} given; expected {expected}")


def controls(text: str) -> tuple[str, ...]:
    """Read the value of ``--controls``: names separated by commas, each once."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in CONTROLS:
            known = ", ".join(CONTROLS)
            raise argparse.ArgumentTypeError(
                f"{name!r} is no control; expected some of: {known}, separated by commas"
            )
    return names


def add_control_options(parser: argparse.ArgumentParser) -> None:
    """What each layer's probe is compared with."""
    add = parser.add_argument
    add(
        "--controls",
        type=controls,
        default=(),
        metavar="NAMES",
        help="compare each curve with these, separated by commas: " + ", ".join(CONTROLS),
    )
    add(
        "--repeats",
        type=count,
        metavar="N",
        default=3,
        help="draws of each random control (default: %(default)s)",
    )
    add(
        "--mdl",
        action="store_true",
        help="also measure each layer's description length of the labels (online code)",
    )


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
