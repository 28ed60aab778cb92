"""One process at a time on a folder."""

import multiprocessing
import os
import signal
import sys

import pytest

from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.lock import folder_lock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such lock")


def hold(folder, held):
    with folder_lock(folder):
        held.set()
        signal.pause()


def test_a_lock_ends_with_its_process(tmp_path):
    processes = multiprocessing.get_context("spawn")
    held = processes.Event()
    process = processes.Process(target=hold, args=(tmp_path, held))
    process.start()
    held.wait()
    message = rf"another process is writing a run to {tmp_path}; wait until it ends, or choose"
    with pytest.raises(LinprobeError, match=message), folder_lock(tmp_path):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with folder_lock(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_a_lock_ends_with_its_block(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), folder_lock(tmp_path):
            with pytest.raises(LinprobeError, match="another process"), folder_lock(tmp_path):
                pass
            raise ZeroDivisionError


def test_where_there_is_no_lock_the_work_goes_on(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with folder_lock(tmp_path), folder_lock(tmp_path):
        pass
