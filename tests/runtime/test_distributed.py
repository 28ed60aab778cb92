"""One process alone; several are tested where they share work (tests/pipeline/test_dealing.py)."""

import pytest

from linprobe.runtime.distributed import (
    ALONE,
    is_first,
    is_spoken_for,
    shared,
    timeout_seconds,
)
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.progress import Event


def test_who_is_alone_agrees_with_itself():
    events = []
    with shared() as ranks:
        assert ranks is ALONE and ranks.leads and ranks.size == 1
        assert ranks.agreed("x") == "x" and ranks.gathered(3) == [3]
        ranks.same("x", "data")
        ranks.check()
        ranks.collect(events.append)  # is not called
        ranks.watched(events.append)(Event(0.0, "network", "solve", "a"))
    assert len(events) == 1 and is_first() and not is_spoken_for()


def test_a_world_of_one_is_alone(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with shared() as ranks:
        assert ranks is ALONE


def test_others_are_not_joined_where_that_is_not_wanted(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with shared(False) as ranks:
        assert ranks is ALONE
    assert not is_first() and is_spoken_for()


@pytest.mark.parametrize(
    ("rank", "size", "said"),
    [
        ("2", "2", "RANK is '2' and WORLD_SIZE '2'; expected whole numbers, RANK from 0"),
        ("x", "2", "RANK is 'x' and WORLD_SIZE '2'; expected whole numbers"),
        ("0", "2", "WORLD_SIZE is 2, but MASTER_ADDR is not set; expected the address"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(rank, size, said, monkeypatch):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(LinprobeError, match=said), shared():
        pass


def test_the_timeout_is_read_from_the_environment(monkeypatch):
    assert timeout_seconds() < 60
    monkeypatch.setenv("LINPROBE_TIMEOUT", "90")
    assert timeout_seconds() == 90
    monkeypatch.setenv("LINPROBE_TIMEOUT", "soon")
    with pytest.raises(LinprobeError, match="LINPROBE_TIMEOUT is 'soon'; expected seconds"):
        timeout_seconds()
