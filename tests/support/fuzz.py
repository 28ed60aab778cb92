"""Damaged files of every kind, and a watch over what a reader does with them."""

import json
import os
import pickle
import sys
import sysconfig
import warnings
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from linprobe.runtime.errors import LinprobeError

FEW = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
"""The same examples each time, of which none waits for a clock."""

_KNOWN = (sys.prefix, sys.base_prefix, sysconfig.get_paths()["stdlib"], "/usr", "/proc", "/sys")
_ROOT = str(Path(__file__).parents[2])
_opened: list[str] | None = None
called: list[str] = []
"""What pickles have called; none may."""


def canary(text):
    """Stand for code that a file wants to run."""
    called.append(text)


class Calls:
    """Calls `canary` where it is unpickled."""

    def __reduce__(self):
        return canary, ("its code ran",)


def harmful():
    """A pickle that calls a function."""
    return pickle.dumps(Calls())


@st.composite
def damaged(draw, whole):
    """Flip bits, cut, insert and overwrite bytes; now and then it is another file altogether."""
    kind = draw(st.sampled_from(("bytes", "bytes", "bytes", "noise", "pickle")))
    if kind == "noise":
        return draw(st.binary(max_size=200))
    if kind == "pickle":
        return harmful()
    raw = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.one_of(st.integers(0, len(raw)), st.integers(0, min(len(raw), 200))))
        kind = draw(st.sampled_from(("flip", "cut", "insert", "overwrite")))
        if kind == "cut":
            del raw[place:]
        elif kind == "insert":
            raw[place:place] = draw(st.binary(min_size=1, max_size=8))
        elif place < len(raw):
            raw[place] = draw(st.integers(0, 255)) if kind == "overwrite" else raw[place] ^ 1
    return bytes(raw)


@st.composite
def flipped(draw, whole):
    """Flip one bit."""
    raw, place = bytearray(whole), draw(st.integers(0, 8 * len(whole) - 1))
    raw[place // 8] ^= 1 << place % 8
    return bytes(raw)


_JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from((-1, 0, 10**15, 1e308, -1.5)),
    st.sampled_from(("", "x", "\x1b[31m", "<script>", "$a_{", "../../x", [], [[]], {}, {"a": 1})),
)


@st.composite
def edited(draw, content):
    """JSON with values that are replaced, left out or repeated, anywhere in it."""
    made = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 2))):
        holder, key = made, draw(st.sampled_from(sorted(made)))
        while isinstance(holder[key], dict | list) and holder[key] and draw(st.integers(0, 3)):
            holder = holder[key]
            keys = sorted(holder) if isinstance(holder, dict) else range(len(holder))
            key = draw(st.sampled_from(keys))
        kind = draw(st.sampled_from(("replace", "replace", "drop", "repeat")))
        if kind == "replace":
            holder[key] = draw(_JUNK)
        elif kind == "drop":
            del holder[key]
        elif isinstance(holder, list):
            holder.append(holder[key])
    return made


@contextmanager
def watched(folder):
    """Fail where the block opens a file outside of `folder`, or a pickle calls `canary`."""
    global _opened
    before, _opened = _opened, []
    try:
        yield
        outside = [p for p in _opened if not _is_within(p, (str(folder), _ROOT, *_KNOWN))]
    finally:
        _opened = before
    assert (outside, called) == ([], []), (outside, called)


def attempt(read, folder):
    """Call a reader, which gives a value or raises one line; return the value, None: it raised."""
    with warnings.catch_warnings(), watched(folder):
        warnings.simplefilter("ignore")
        try:
            return read()
        except LinprobeError as error:
            said = str(error)
            assert "\n" not in said and 20 < len(said) < 800, said
            return None


def _is_within(path, folders):
    return any(os.path.abspath(path).startswith(folder) for folder in folders)


def _note(event, arguments):
    if event == "open" and _opened is not None and isinstance(arguments[0], str):
        _opened.append(arguments[0])


sys.addaudithook(_note)
