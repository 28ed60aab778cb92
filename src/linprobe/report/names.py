"""Short names of layers, which still differ."""

from collections.abc import Sequence

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
    short = [shorten(name, length) for name in names]
    for place, name in enumerate(names):
        alike = [other for other in names if shorten(other, length) == shorten(name, length)]
        letters = zip(*alike, strict=False)
        common = next((i for i, found in enumerate(letters) if len(set(found)) > 1), 0)
        if common:
            begin = max(0, common - length // 3)
            end = begin + length - 2
            short[place] = _MIDDLE + name[begin:end] + (_MIDDLE if end < len(name) else "")
    return [
        f"{text[: length - 6]} #{place}" if short.count(text) > 1 else text
        for place, text in enumerate(short)
    ]
