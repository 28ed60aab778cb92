"""Faults of disks that any user can cause, and that are real to the program."""

import os
import resource
from contextlib import contextmanager


@contextmanager
def file_sizes_up_to(num_bytes):
    """Let the system refuse to write files beyond a size: a write fails, as on a full disk.

    Python ignores the signal, so that the write itself raises an `OSError`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def flip(path, bit):
    """Flip one bit of a file, in place; a disk's own errors leave its time of change."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))
    os.utime(path, ns=times)
