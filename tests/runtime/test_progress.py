"""Fractions of expected work."""

import time
from concurrent.futures import ThreadPoolExecutor

from linprobe.runtime.progress import Tracker, ignore


def test_fractions_follow_the_work_that_is_done():
    events = []
    tracker = Tracker(events.append, total=10.0)
    tracker.report("untrained", "solve", "starting")
    tracker.report("untrained", "solve", "half way", begun=2.0)
    tracker.spend(4.0)
    tracker.report("untrained", "solve", "done", milestone=True)
    assert [event.fraction for event in events] == [0.0, 0.2, 0.4]
    assert [event.milestone for event in events] == [False, False, True]
    assert (events[0].checkpoint, events[0].stage, events[0].text) == (
        "untrained",
        "solve",
        "starting",
    )


def test_more_work_than_expected_stays_at_one():
    events = []
    tracker = Tracker(events.append, total=0.0)
    tracker.spend(3.0)
    tracker.report("a", "train", "b")
    assert events[0].fraction == 1.0
    ignore(events[0])


def test_threads_are_heard_one_at_a_time():
    inside, most = 0, 0

    def on_event(event):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.001)
        inside -= 1

    tracker = Tracker(on_event, 40)

    def work(_):
        for _ in range(10):
            tracker.spend(1)
            tracker.report("a", "b", "c")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert most == 1
