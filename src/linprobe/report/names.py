"""Short names of layers, which still differ."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from os.path import commonprefix

_MIDDLE = "\N{HORIZONTAL ELLIPSIS}"


def shorten(text: str, length: int) -> str:
    """Cut to at most `length` characters, with both ends kept: layers differ in either."""
    if len(text) <= length:
        return text
    tail = (length - 1) * 3 // 5
    return text[: length - 1 - tail] + _MIDDLE + text[-tail:]


def short_names(names: Sequence[str], length: int) -> list[str]:
    """Cut names to at most `length` characters, different ones where the names are.

    Long names that would look alike are cut around the first place where they differ.
    """
    alike = defaultdict(set)
    for name in names:
        alike[shorten(name, length)].add(name)
    begins = {short: _begin(found, length) for short, found in alike.items()}
    short = [_cut(name, begins[shorten(name, length)], length) for name in names]
    counts = Counter(short)
    return [
        f"{text[: length - 6]} #{place}" if counts[text] > 1 else text
        for place, text in enumerate(short)
    ]


def _begin(alike: set[str], length: int) -> int:
    """Place from which names differ, a little before it; 0 where they need not be cut there."""
    common = len(commonprefix(list(alike)))  # noqa: RUF071 - characters are meant, not paths
    return max(0, common - length // 3) if 0 < common < min(map(len, alike)) else 0


def _cut(name: str, begin: int, length: int) -> str:
    if not begin:
        return shorten(name, length)
    end = begin + length - 2
    return _MIDDLE + name[begin:end] + (_MIDDLE if end < len(name) else "")
