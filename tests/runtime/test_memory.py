import ctypes
import resource
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


KEPT = """
from pathlib import Path
from linprobe.runtime import memory
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def resident(): return int(Path("/proc/self/statm").read_text().split()[1])
def used():
    arrays = [libc.malloc(2**26) for _ in range(4)]
    for array in arrays: ctypes.memset(array, 1, 2**26)
    for array in arrays: libc.free(array)
    return resident()
if TUNED: memory.tune_allocator()
else: libc.mallopt(-3, 2**28), libc.mallopt(-1, 2**31 - 1)
kept = used()
memory.give_back_freed()
print(kept - resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
@pytest.mark.parametrize("tuned", [True, False])
def test_what_is_kept_is_given_back_where_the_allocator_is_ours(tuned):
    code = [sys.executable, "-c", KEPT.replace("TUNED", str(tuned))]
    pages = int(subprocess.run(code, capture_output=True, text=True, check=True).stdout)
    size = resource.getpagesize() * pages
    assert (size > 0.9 * 2**28) if tuned else (size < 0.1 * 2**28)


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert not memory.tune_allocator()


def test_an_allocator_without_settings_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not memory.tune_allocator()


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Write files of /proc and /sys/fs/cgroup; a free machine of 8 GB to begin with."""
    monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "groups")

    def put(**texts):
        for name, text in texts.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    put(proc__meminfo="MemTotal: 9 kB\nMemAvailable:    8000000 kB")
    return put


def test_available_memory_is_what_the_system_says(system, tmp_path):
    assert memory.available_bytes() == 8_000_000 * 1024
    (tmp_path / "proc" / "meminfo").write_text("nothing")
    assert memory.available_bytes() == 4 * 2**30


STAT = "anon 5\ninactive_file 400\ntotal_inactive_file 300"


@pytest.mark.parametrize("inner", ["", "slice/job/step/"])
@pytest.mark.parametrize("limited", ["", "slice/", "slice/job/"])
def test_the_limit_of_a_control_group_and_of_those_around_it(inner, limited, system):
    if len(limited) > len(inner):
        inner = limited
    system(**{"proc__self__cgroup": f"1:name=systemd:/x\n0::/{inner}"})
    group = f"groups/{limited}memory"
    system(**{f"{group}.max": 3000, f"{group}.current": 1000, f"{group}.stat": STAT})
    assert memory.available_bytes() == 2400, "files that were read are dropped first"
    system(**{f"groups/{inner}memory.max": "max"})
    assert memory.available_bytes() == (8_000_000 * 1024 if inner == limited else 2400)
    system(**{f"{group}.max": 500})
    assert memory.available_bytes() == 0


@pytest.mark.parametrize("place", ["", "job/step/"])
def test_control_groups_of_version_1(place, system):
    system(proc__self__cgroup=f"4:cpuset,memory:/{place}\n3:cpu:/\n0::/")
    system(**{f"groups/memory/{place}memory.limit_in_bytes": 3000})
    assert memory.available_bytes() == 8_000_000 * 1024
    system(**{f"groups/memory/{place}memory.usage_in_bytes": 1000})
    system(**{f"groups/memory/{place}memory.stat": STAT})
    assert memory.available_bytes() == 2300


def test_a_limit_of_the_address_space(system, monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda kind: (2**30, -1))
    system(proc__self__statm="1000 5 5")
    assert memory.available_bytes() == 2**30 - 1000 * resource.getpagesize()
    monkeypatch.setitem(sys.modules, "resource", None)
    assert memory.available_bytes() == 8_000_000 * 1024


def test_failed_allocations_are_told_from_other_errors():
    assert memory.is_out_of_memory(MemoryError())
    assert memory.is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert memory.is_out_of_memory(RuntimeError("can't start new thread"))
    assert memory.is_out_of_memory(RuntimeError("could not create a primitive"))
    assert not memory.is_out_of_memory(RuntimeError("unsupported memory format"))
