"""Patterns of layer names, in which a ``*`` ends where a module does.

| in a pattern | stands for |
|---|---|
| ``*`` | any characters but dots (and the slashes of Keras) |
| ``**`` | any characters |
| ``?``, ``[ab]``, ``[!ab]`` | one character but a dot; one of these, or none of these |
| ``{0..11}`` | the whole numbers of a range, both ends included |
| ``{q,k,v}`` | one of these |
"""

import re
from collections.abc import Iterable, Iterator

from linprobe.runtime.errors import LinprobeError

_PLACE = "[^./]"  # a character inside one name of a path
_PART = re.compile(r"\*\*+|\*|\?|\[!?\]?[^\]]*\]|\{[^{}]*\}")
_ONE = re.compile(r"(\?|\[[^\]]+-[^\]]+\])+")
_LONGEST = 10_000  # numbers of a range
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """Those of `names`, in order, that a pattern means.

    Raises:
        LinprobeError: A set of characters or a range that can't be.
    """
    try:
        regex = re.compile(_regex(pattern))
    except re.error as error:
        raise LinprobeError(f"{pattern!r} is no pattern of layer names: {error}") from error
    return [name for name in names if regex.fullmatch(name)]


def widened(pattern: str) -> str:
    """The pattern with ``*`` for single characters, so that ``layer.?`` goes beyond layer.9."""
    return _ONE.sub("*", pattern)


def deepened(pattern: str) -> str:
    """The pattern whose stars cross dots."""
    return re.sub(r"\*+", "**", pattern)


def _regex(pattern: str) -> str:
    parts, end = [], 0
    for found in _PART.finditer(pattern):
        parts += [re.escape(pattern[end : found.start()]), _part(found.group())]
        end = found.end()
    return "".join(parts) + re.escape(pattern[end:])


def _part(text: str) -> str:
    if text[0] == "*":
        return f"{_PLACE}*" if text == "*" else "(?s:.*)"
    if text[0] == "?":
        return _PLACE
    if text[0] == "[":
        negated = text[1] == "!"
        inside = re.sub(r"([\\\[\]^&|~])", r"\\\1", text[1 + negated : -1])
        return f"[{'^./' * negated}{inside}]"
    words = [_words(word.strip()) for word in text[1:-1].split(",")]
    return f"(?:{'|'.join(word for some in words for word in some)})"


def _words(text: str) -> Iterator[str]:
    if (ends := _RANGE.fullmatch(text)) is None:
        yield _regex(text)
        return
    first, last = sorted(map(int, ends.groups()))
    if last - first >= _LONGEST:
        raise LinprobeError(f"{{{text}}} holds {last - first + 1:,} numbers; expected {_LONGEST:,}")
    yield from map(str, range(first, last + 1))
