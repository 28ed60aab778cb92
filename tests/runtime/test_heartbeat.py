"""Processes that wait for each other learn of one that is gone."""

from threading import Thread

import pytest
from torch.distributed import HashStore

from linprobe.runtime.heartbeat import LostProcess, Pulse

SECONDS = 1.0
PATIENT = 30.0  # where no one is to be lost, however late a machine runs a thread


def started(size, seconds=SECONDS):
    store = HashStore()
    pulses = [Pulse(store, rank, size, seconds) for rank in range(size)]
    for pulse in pulses:
        pulse.begin()
    return pulses


def ended(pulses):
    threads = [Thread(target=p.end, kwargs={"wait": p is pulses[0]}) for p in pulses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_all_meet_and_leave():
    pulses = started(3, PATIENT)
    threads = [Thread(target=pulse.meet) for pulse in pulses[1:]]
    for thread in threads:
        thread.start()
    pulses[0].meet()
    for thread in threads:
        thread.join()
    assert [pulse.lost for pulse in pulses] == ["", "", ""]
    ended(pulses)


def test_who_fails_says_so_to_those_who_wait():
    first, second = pulses = started(2, PATIENT)
    second.fail("process 1 of 2 failed: why")
    with pytest.raises(LostProcess, match="process 1 of 2 failed: why"):
        first.meet()
    first.begin()  # another call is another matter
    first.check()
    ended(pulses)


@pytest.mark.parametrize(("gone", "other"), [(0, 1), (1, 0)])
def test_who_does_not_answer_is_lost(gone, other):
    pulses = started(2)
    pulses[gone]._stop.set()
    with pytest.raises(LostProcess, match=f"^process {gone} of 2 has not answered for 1 s$"):
        pulses[other].meet()
    assert pulses[other].first_is_lost == (gone == 0)
    pulses[other].end(wait=other == 0)


def test_who_has_ended_is_not_waited_for():
    first, second = started(2)
    second.end(wait=False)
    with pytest.raises(LostProcess, match="process 1 of 2 has ended"):
        first.meet()
    first.end(wait=True)


def test_who_does_not_come_is_waited_for_so_long():
    pulse = Pulse(HashStore(), 0, 3, SECONDS)
    said = "only 1 of 3 processes called linprobe within 1 s; call it in all of them"
    with pytest.raises(LostProcess, match=said):
        pulse.wait("here", 1.0)
    pulse.end(wait=False)


def test_what_can_not_be_reached_is_lost():
    first, second = pulses = started(2)
    with pytest.raises(LostProcess, match="another process has ended or no longer answers"):
        with first.answering():
            raise RuntimeError("connection closed by peer")
    assert second.lost == ""  # until the first one says that it ends
    ended(pulses)
