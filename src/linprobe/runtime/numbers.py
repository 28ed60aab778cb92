"""Numbers of other libraries: those that options are given, and the dtypes of arrays."""

import operator
import reprlib
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from math import isfinite
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from linprobe.runtime.errors import LinprobeError

if TYPE_CHECKING:
    import numpy as np

LARGEST_SEED = 2**64 - 1
"""Largest seed that PyTorch takes."""


def whole_number(name: str, value: object, low: int = 0, high: int | None = None) -> int:
    """Convert an option to an int.

    Args:
        name: of the option, for the message.
        value: a whole number of any library.
        low: smallest that is allowed.
        high: largest that is allowed; None: any.

    Raises:
        LinprobeError: Something else, truth values and text among it, or out of range.
    """
    whole = as_whole(value)
    if whole is None or whole < low or (high is not None and whole > high):
        top = "on" if high is None or whole is None or whole < low else f"to {high}"
        raise LinprobeError(f"{name} is {shown(value)}; expected a whole number from {low} {top}")
    return whole


def real_number(name: str, value: object, expected: str, fits: Callable[[float], bool]) -> float:
    """Convert an option to a finite float; an int stays one.

    Args:
        name: of the option, for the message.
        value: a real number of any library.
        expected: what it should be, for the message.
        fits: tells whether it is.

    Raises:
        LinprobeError: Something else, truth values and text among it.
    """
    number = as_real(value)
    if number is None or not isfinite(number) or not fits(number):
        raise LinprobeError(f"{name} is {shown(value)}; expected {expected}")
    return number


def positive_number(name: str, value: object, expected: str = "a positive number") -> float:
    """Convert an option to a finite float above 0, or raise `LinprobeError`."""
    return real_number(name, value, expected, lambda number: number > 0)


def momentum_number(momentum: object) -> float:
    """Convert the momentum of an optimiser to a float, or raise `LinprobeError`."""
    return real_number("momentum", momentum, "0 or more and below 1", lambda x: 0 <= x < 1)


def check_seed(seed: object) -> int:
    """Convert a seed to an int, or raise `LinprobeError`."""
    return whole_number("seed", seed, high=LARGEST_SEED)


def as_whole(value: object) -> int | None:
    """Convert a whole number of any library to an int; None: it is none."""
    number = _scalar(value)
    return operator.index(number) if isinstance(number, Integral) else None


def as_real(value: object) -> float | None:
    """Convert a real number of any library to a float, or leave an int; None: it is none."""
    number = _scalar(value)
    with suppress(OverflowError, TypeError, ValueError):
        if isinstance(number, int):
            return number if isfinite(number) else None  # OverflowError: no float is as large
        if isinstance(number, Real | Decimal):
            return float(number)
    return None


def shown(value: object) -> str:
    """Write a value for a message: on one line, and not all of what is long."""
    return " ".join(reprlib.repr(value).split())


def _scalar(value: Any) -> object:
    """Take the number out of a scalar or an array of no dimension; None: it holds no number."""
    if hasattr(value, "ndim"):
        try:
            value = value.item() if value.ndim == 0 else None
        except (RuntimeError, TypeError, ValueError):  # a tensor on "meta" has no value
            return None
    return None if isinstance(value, bool) else value


def native_dtype(dtype: "np.dtype[Any]") -> "np.dtype[Any]":
    """Give the dtype in this machine's order of bytes; longdouble, which tensors lack: float64."""
    import numpy as np  # not for the command line's help

    native = dtype.newbyteorder("=")
    return np.dtype(np.float64) if native == np.longdouble else native
