"""Main memory: how much is free, failed allocations, and settings of the C allocator."""

import ctypes
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
FEATURE_SHARE = 0.4
"""Share of the free memory that features may take; solving takes as much again."""

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_VERSION_1 = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
_VERSION_2 = "memory.max", "memory.current", "inactive_file"
_FALLBACK = 4.0 * 2**30  # where the system does not say
_KEEP, _MAPPED, _PAD = 2**31 - 1, 2**29, 2**26
_is_tuned = False


def tune_allocator() -> bool:
    """Let the C allocator keep what is freed, up to arrays of 512 MiB, for the next array.

    By default glibc gives large arrays back to the system at once, and the first touch of each
    page of the next one costs more than the arithmetic on it: solving a narrow layer takes half
    the time with this. It is for the command line, which owns its process; the library leaves
    its host's allocator alone.

    Returns:
        Whether the allocator took the settings; False where it is not glibc.
    """
    global _is_tuned
    mallopt = _glibc("mallopt")
    settings = ((_M_MMAP_THRESHOLD, _MAPPED), (_M_TRIM_THRESHOLD, _KEEP), (_M_TOP_PAD, _PAD))
    taken = mallopt is not None and all([mallopt(option, value) for option, value in settings])
    _is_tuned = _is_tuned or taken
    return taken


def give_back_freed() -> None:
    """Give back to the system what the allocator keeps, if `tune_allocator` has it keep that.

    What is kept piles up over layers of different sizes; once before many large arrays is enough.
    """
    trim = _glibc("malloc_trim")
    if _is_tuned and trim is not None:
        trim(0)


def _glibc(name: str) -> Callable[..., int] | None:
    on_linux = sys.platform.startswith("linux")
    function: Callable[..., int] | None = (
        getattr(ctypes.CDLL(None), name, None) if on_linux else None
    )
    return function


def is_out_of_memory(error: BaseException) -> bool:
    """Tell a failed allocation: PyTorch raises a plain RuntimeError for main memory.

    A thread that can't be started lacks memory for its stack, a primitive of oneDNN for its code.
    """
    signs = "out of memory", "allocate memory", "can't start new thread", "create a primitive"
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)


def available_bytes() -> float:
    """Return the main memory that is free: the machine's, or that of a limit if less.

    Limits are those of the control groups that the process is in, and of its address space.
    """
    room = _FALLBACK
    try:
        for line in _read(_PROC / "meminfo").splitlines():
            if line.startswith("MemAvailable:"):
                room = 1024.0 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return max(min([room, *_group_rooms(), *_address_space()]), 0.0)


def _group_rooms() -> Iterator[float]:
    """Yield what is left of the limit of each control group that the process is in."""
    for folder, limit, used, reclaimed in _groups():
        try:
            most, now = int(_read(folder / limit)), int(_read(folder / used))
            cached = dict(map(str.split, _read(folder / "memory.stat").splitlines()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
        # Files that were read count as used, and are dropped when memory is asked for.
        yield float(most - now + int(cached.get(reclaimed, 0)))


def _groups() -> Iterator[tuple[Path, str, str, str]]:
    """Yield the folders of the process's control groups and all around them, with file names."""
    try:
        lines = _read(_PROC / "self" / "cgroup").splitlines()
    except OSError:
        lines = []
    for line in (*lines, "0::/", "0:memory:/"):  # a container may see its group as the root
        _, controllers, path = line.split(":", 2)
        names, root = _VERSION_2, _GROUPS
        if controllers:
            if "memory" not in controllers.split(","):
                continue
            names, root = _VERSION_1, _GROUPS / "memory"
        inner = PurePosixPath(path.lstrip("/"))
        for place in (inner, *inner.parents):
            yield root / place, *names


def _address_space() -> Iterator[float]:
    """Yield what is left of a limit of the address space (`ulimit -v`)."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        used = int(_read(_PROC / "self" / "statm").split()[0]) * resource.getpagesize()
    except (ImportError, OSError, ValueError, IndexError):
        return
    if limit != resource.RLIM_INFINITY:
        yield float(limit - used)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
