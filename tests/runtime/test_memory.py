import ctypes
import subprocess
import sys

import pytest

from linprobe.runtime import memory

CODE = """
from linprobe.runtime.memory import tune_allocator
import resource, numpy
taken = tune_allocator()
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
    plain = CODE.replace("taken = tune_allocator()", "taken = 0")
    given_back = subprocess.run([*run, plain], capture_output=True, text=True, check=True).stdout
    taken, faults = map(int, kept.split())
    assert taken == 1
    assert faults < 0.5 * int(given_back.split()[1])


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert not memory.tune_allocator()


def test_an_allocator_without_settings_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not memory.tune_allocator()


def test_available_memory_is_what_the_system_says(monkeypatch):
    texts = {
        "/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    2048 kB\n",
        "/sys/fs/cgroup/memory.max": "3000000\n",
        "/sys/fs/cgroup/memory.current": "1000000\n",
    }

    def read(path, **_):
        if str(path) not in texts:
            raise FileNotFoundError(path)
        return texts[str(path)]

    monkeypatch.setattr(memory.Path, "read_text", read)
    assert memory.available_bytes() == 2_000_000
    texts["/sys/fs/cgroup/memory.max"] = "max\n"
    assert memory.available_bytes() == 2048 * 1024
    texts.clear()
    assert memory.available_bytes() == 4 * 2**30


def test_failed_allocations_are_told_from_other_errors():
    assert memory.is_out_of_memory(MemoryError())
    assert memory.is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert not memory.is_out_of_memory(RuntimeError("unsupported memory format"))
