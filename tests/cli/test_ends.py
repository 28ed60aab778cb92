"""Ends of a command from outside."""

import os
import signal
import threading
from pathlib import Path

import pytest

from linprobe.cli.ends import Terminated, kept_in, terminable


def test_sigterm_ends_the_block_and_is_then_what_it_was_before():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), terminable():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_can_not_say_so_and_run_all_the_same():
    done = []

    def work():
        with terminable():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Terminated])
@pytest.mark.parametrize(("overwrite", "command"), [(False, ""), (True, " without --overwrite")])
def test_what_is_said(kind, overwrite, command):
    with pytest.raises(kind) as caught, kept_in(Path("x"), overwrite=overwrite):
        raise kind
    said = f"finished layers are kept in x; the same command{command} goes on from there"
    assert type(caught.value) is kind and str(caught.value) == said
