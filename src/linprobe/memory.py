"""Memory settings for a process that is linprobe's own."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEEP, _MAPPED, _PAD = 2**31 - 1, 2**30, 2**26


def keep_freed_memory() -> bool:
    """Let the C allocator keep what is freed, up to arrays of 1 GiB, for the next array.

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
