import ctypes
import subprocess
import sys

import pytest

from linprobe import memory

CODE = """
from linprobe.memory import keep_freed_memory
import resource, numpy
taken = keep_freed_memory()
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
numpy.ones(8 * 2**20)
before = faults()
for _ in range(5): numpy.ones(8 * 2**20)
print(int(taken), faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_arrays_are_used_again_without_page_faults():
    run = [sys.executable, "-c"]
    kept = subprocess.run([*run, CODE], capture_output=True, text=True, check=True).stdout
    plain = CODE.replace("taken = keep_freed_memory()", "taken = 0")
    given_back = subprocess.run([*run, plain], capture_output=True, text=True, check=True).stdout
    taken, faults = map(int, kept.split())
    assert taken == 1
    assert faults < 0.5 * int(given_back.split()[1])


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert not memory.keep_freed_memory()


def test_an_allocator_without_settings_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not memory.keep_freed_memory()
