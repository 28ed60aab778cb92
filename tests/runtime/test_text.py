"""Numbers as people read them."""

import pytest

from linprobe.runtime.text import counted, duration, size_text, time_left


def test_counts():
    assert [counted(n, "layer") for n in (0, 1, 2000)] == ["0 layers", "1 layer", "2,000 layers"]


def test_sizes_for_people():
    assert [size_text(n) for n in (12, 2048, 3 * 2**20, 2**31)] == [
        "12 bytes", "2 KiB", "3 MiB", "2 GiB",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [(0.0, ""), (0.005, ""), (0.25, "about 3 min 0 s left"), (1.0, "")],
)
def test_time_left(fraction, expected):
    assert time_left(fraction, 60.0) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.2, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (3900, "1 h 5 min")],
)
def test_duration(seconds, expected):
    assert duration(seconds) == expected
