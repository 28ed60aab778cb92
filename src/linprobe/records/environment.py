"""What a result was computed with."""

import importlib.metadata
import platform
import resource
import sys
from pathlib import Path
from typing import Any


def environment(threads: int, device: str) -> dict[str, Any]:
    """Versions and hardware, for a run's record.

    Args:
        threads: CPU threads that computations may use.
        device: "cpu" or "cuda".

    Returns:
        linprobe, torch, python: versions; cpu: its model name; threads; device, with the
        GPU's name.
    """
    return {
        "linprobe": importlib.metadata.version("linprobe"),
        "torch": importlib.metadata.version("torch"),
        "python": platform.python_version(),
        "cpu": _cpu_model(),
        "threads": threads,
        "device": device if device == "cpu" else f"{device} ({_gpu_model(device)})",
    }


def peak_rss_bytes() -> int:
    """Largest memory that this process has held so far, in bytes."""
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
