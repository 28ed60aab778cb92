"""Versions, hardware and memory of this process."""

import importlib.metadata
import platform
import sys
from pathlib import Path

from linprobe.records.schema import EnvironmentRecord


def environment(threads: int, device: str) -> EnvironmentRecord:
    """Describe what a result is computed with.

    Args:
        threads: CPU threads that computations may use.
        device: "cpu" or "cuda".

    Returns:
        Versions, the model of the CPU, and the device with the name of a GPU.
    """
    return EnvironmentRecord(
        linprobe=importlib.metadata.version("linprobe"),
        torch=importlib.metadata.version("torch"),
        python=platform.python_version(),
        cpu=_cpu_model(),
        threads=threads,
        device=device if device == "cpu" else f"{device} ({_gpu_model(device)})",
    )


def peak_rss_bytes() -> int:
    """Return the largest memory that this process has held so far; 0 where no system tells."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts kibibytes


def _cpu_model(info: Path = Path("/proc/cpuinfo")) -> str:
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"


def _gpu_model(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(device)
