"""Text for terminals that can't show every character, such as those of Windows (cp1252)."""

import codecs
import io
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_ERRORS = "linprobe.plain"
_PLAIN = {
    "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{EN DASH}": "-",
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{BOX DRAWINGS LIGHT HORIZONTAL}": "-",
    "\N{BOX DRAWINGS LIGHT VERTICAL}": "|",
}


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace what an encoding lacks by plain characters, else by an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    escaped = (_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in found)
    return "".join(escaped), error.end


codecs.register_error(_ERRORS, _plain)


def printable(text: str) -> str:
    """Write `text` with the characters that standard output can show."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, _ERRORS).decode(encoding)


@contextmanager
def plain_where_needed() -> Iterator[None]:
    """Let standard output and error show what their encoding lacks by plain characters."""
    with ExitStack() as stack:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stack.callback(stream.reconfigure, errors=stream.errors)
                stream.reconfigure(errors=_ERRORS)
        yield
