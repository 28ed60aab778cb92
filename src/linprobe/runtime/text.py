"""Words for messages: sizes, times, counts, errors."""

import math
from collections.abc import Sequence

from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.numbers import as_whole

_LONGEST = 300  # letters: messages of other libraries may quote what they read


def counted(number: int, noun: str) -> str:
    """Write a number with its noun: "1 time", "2,000 times"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def some(values: Sequence[object], count: int = 5) -> str:
    """List the first of some values, with dots for the others."""
    return ", ".join(map(str, values[:count])) + (" ..." if len(values) > count else "")


def layer_name(key: object) -> str:
    """Name a layer as text: 3 as "3", NumPy's too, and (3, "attn") as "3.attn"."""
    if isinstance(key, tuple):
        return ".".join(map(layer_name, key))
    number = as_whole(key)
    return str(key if number is None else number)


def first_line(error: BaseException) -> str:
    """Take the first line of an error's message, "" if it has none; of others' its beginning."""
    line = str(error).strip().partition("\n")[0]
    return line if isinstance(error, LinprobeError) else line[:_LONGEST]


def said(error: BaseException) -> str:
    """Give the first line of an error's message, or its type where it has none."""
    return first_line(error) or type(error).__name__


def cause(error: BaseException) -> str:
    """Name an error's type and the first line of its message."""
    return f"{type(error).__name__}: {first_line(error)}"


def layer_reason(layer: str, error: Exception) -> str:
    """Say what went wrong at a layer, to be put after its name and a colon."""
    said = first_line(error) if isinstance(error, LinprobeError) else cause(error)
    said, name = said.removeprefix(f"layer {layer!r}: "), f"layer {layer!r} "
    return f"it {said.removeprefix(name)}" if said.startswith(name) else said


def size_text(num_bytes: float) -> str:
    """Write a number of bytes for people: "12 bytes", "3.5 MiB"."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if num_bytes >= size:
            return f"{num_bytes / size:.3g} {unit}"
    return f"{num_bytes:.0f} bytes"


def time_left(fraction: float, elapsed: float) -> str:
    """Write the time that the rest will take at the pace so far; "" while that is a guess."""
    if not 0.01 <= fraction < 1:
        return ""
    return f"about {duration(elapsed * (1 - fraction) / fraction)} left"


def duration(seconds: float) -> str:
    """Write seconds for people: "8 s", "3 min 20 s", "1 h 5 min"."""
    if not math.isfinite(seconds):  # of a record that doesn't know
        return "unknown"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
