"""Versions, hardware and memory of this process."""

import platform
import sys
from importlib.metadata import version
from pathlib import Path

from linprobe.records.schema import EnvironmentRecord

_STATUS = Path("/proc/self/status")


def environment(threads: int, device: str) -> EnvironmentRecord:
    """Describe what a result is computed with, on "cpu", "cuda" or the like, and CPU threads."""
    if device != "cpu":
        import torch

        module = torch.get_device_module(device)
        device = f"{device} ({module.get_device_name(device)})"
    versions = (version("linprobe"), version("torch"), platform.python_version())
    return EnvironmentRecord(*versions, _cpu_model(), threads, device)


def peak_rss_bytes() -> int:
    """Return the largest memory that this process has held so far; 0 where no system tells."""
    for line in _lines(_STATUS):
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    try:
        import resource
    except ImportError:  # Windows
        return 0
    # Where Linux tells nothing better: this starts at what the parent process has held.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts kibibytes


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _cpu_model(info: Path = Path("/proc/cpuinfo")) -> str:
    for line in _lines(info):
        if line.lower().startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"
