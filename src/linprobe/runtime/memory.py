"""Main memory: how much is free, failed allocations, and settings of the C allocator."""

import ctypes
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
FEATURE_SHARE = 0.4
"""Share of the free memory that features may take; solving takes as much again."""

_FALLBACK = 4.0 * 2**30  # where the system does not say
_KEEP, _MAPPED, _PAD = 2**31 - 1, 2**28, 2**26


def tune_allocator() -> bool:
    """Let the C allocator keep what is freed, up to arrays of 256 MiB, for the next array.

    By default glibc gives large arrays back to the system at once, and the first touch of each
    page of the next one costs more than the arithmetic on it: solving a narrow layer takes half
    the time with this. It is for the command line, which owns its process; the library leaves
    its host's allocator alone.

    Returns:
        Whether the allocator took the settings; False where it is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_MMAP_THRESHOLD, _MAPPED), (_M_TRIM_THRESHOLD, _KEEP), (_M_TOP_PAD, _PAD))
    return all([bool(mallopt(option, value)) for option, value in settings])


def is_out_of_memory(error: BaseException) -> bool:
    """Tell a failed allocation: PyTorch raises a plain RuntimeError for main memory."""
    said = str(error)
    return isinstance(error, MemoryError) or "out of memory" in said or "allocate memory" in said


def available_bytes() -> float:
    """Return the main memory that is free: the machine's, or its control group's if less."""
    room = _FALLBACK
    try:
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                room = 1024.0 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text(encoding="utf-8"))
        used = int((group / "memory.current").read_text(encoding="utf-8"))
        room = min(room, float(limit - used))
    except (OSError, ValueError):  # no control groups, or "max"
        pass
    return max(room, 0.0)
