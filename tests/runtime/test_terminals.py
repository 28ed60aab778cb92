"""What a terminal can't show is shown by plain characters, at the same place."""

import io
import sys

import pytest

from linprobe.runtime.terminals import plain_where_needed, printable

TEXT = "größe\N{HORIZONTAL ELLIPSIS} a\N{RIGHTWARDS ARROW}b 0\N{EN DASH}1 \u65e5 \udcff"
SHOWN = {
    "ascii": r"gr\xf6\xdfe... a->b 0-1 \u65e5 \udcff",
    "latin-1": r"größe... a->b 0-1 \u65e5 \udcff",
    "cp1252": "größe\N{HORIZONTAL ELLIPSIS} a->b 0\N{EN DASH}1 \\u65e5 \\udcff",
    "utf-8": TEXT.replace("\udcff", r"\udcff"),
}


@pytest.mark.parametrize("encoding", SHOWN)
def test_what_an_encoding_lacks_is_replaced(encoding, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    assert printable(TEXT) == SHOWN[encoding]
    with plain_where_needed():
        print(TEXT, end="", flush=True)
    assert stream.buffer.getvalue().decode(encoding) == SHOWN[encoding]
    assert stream.errors == "strict"


def test_streams_of_other_kinds_are_left_alone(monkeypatch):
    stream = io.StringIO()  # has no encoding
    monkeypatch.setattr(sys, "stdout", stream)
    with plain_where_needed():
        print(printable("größe"), end="")
    assert stream.getvalue() == "größe"
