"""The machine, its versions, and how fast it multiplies and reads."""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from benchmarks.competitors import version_of
from linprobe.records.environment import environment

_SIDE = 3000
_READ_BYTES = 2**29
_REPEATS = 7


def describe(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Versions and hardware, with the measured limits of the roofline.

    Returns:
        What `linprobe.records.environment` says, versions of the competitors (None: not installed),
        gemm_flops (a float32 product of two 3000 x 3000 matrices, operations a second) and
        read_bytes (float32 summed from memory, bytes a second), the best of seven each.
    """
    torch.set_num_threads(threads)
    packages = ("scikit-learn", "scipy", "numpy", "probekit")
    return {
        **asdict(environment(threads, device)),
        **{name: version_of(name) for name in packages},
        "gemm_flops": _gemm_flops(device),
        "read_bytes": _read_bytes(device),
    }


def fastest(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """A description with the larger of two measured limits, if both are of one machine.

    Other work on the machine makes measured limits too low, and shares of the roofline too high.
    """
    same = all(now[name] == before.get(name) for name in ("cpu", "threads"))
    limits = ("gemm_flops", "read_bytes")
    return now | {name: max(now[name], before[name]) for name in limits if same}


def _gemm_flops(device: str) -> float:
    a = torch.ones(_SIDE, _SIDE, device=device)
    b = torch.ones(_SIDE, _SIDE, device=device)
    return 2.0 * _SIDE**3 / best_of(lambda: a @ b, device)


def _read_bytes(device: str) -> float:
    a = torch.ones(_READ_BYTES // 4, device=device)
    return _READ_BYTES / best_of(lambda: a.sum(), device)


def best_of(work: Callable[[], object], device: str = "cpu") -> float:
    """Seconds of the fastest of seven runs."""
    seconds = []
    for _ in range(_REPEATS):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def pass_seconds(
    num_rows: int, num_features: int, num_classes: int, machine: dict[str, Any]
) -> float:
    """The least time of one pass: two reads of all features, or its multiplications if slower.

    A pass multiplies twice (logits, gradient), ``2 n D K`` operations each.
    """
    read = 2 * 4.0 * num_rows * num_features / float(machine["read_bytes"])
    multiply = 4.0 * num_rows * num_features * num_classes / float(machine["gemm_flops"])
    return max(read, multiply)
