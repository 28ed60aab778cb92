"""Devices that PyTorch computes on."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.memory import available_bytes
from linprobe.runtime.text import first_line


def find_device(device: torch.device | str) -> torch.device:
    """Find the device of that name, or raise `LinprobeError`: PyTorch can't use it here."""
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as error:
        raise LinprobeError(
            f"device is {str(device)!r}, which can't be used here ({first_line(error)}); expected "
            "'cpu' or a GPU that this PyTorch sees, such as 'cuda'"
        ) from error
    return found


def supports_float64(device: torch.device) -> bool:
    """Tell whether a device has float64, which certificates need; Apple's ``mps`` has not."""
    if device.type in ("cpu", "cuda", "meta"):
        return True
    try:
        torch.ones(1, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):
        return False
    return True


def solving_device(device: torch.device) -> tuple[torch.device, tuple[str, ...]]:
    """Return the device if it computes in float64, else the CPU and a sentence that says so."""
    if supports_float64(device):
        return device, ()
    said = f"Probes were solved on the CPU: {device} has no float64, which certificates need."
    return torch.device("cpu"), (said,)


@contextmanager
def kept_random(devices: Iterable[torch.device]) -> Iterator[None]:
    """Give back the random numbers of PyTorch on the CPU and on these devices after a block."""
    states = []
    for device in sorted({str(device) for device in devices} - {"cpu", "meta"}):
        module: Any = torch.get_device_module(device)
        place = () if device.startswith("mps") else (device,)  # there is one of them only
        states.append((module, place, module.get_rng_state(*place)))
    with torch.random.fork_rng(devices=()):
        try:
            yield
        finally:
            for module, place, state in states:
                module.set_rng_state(state, *place)


def free_bytes(device: torch.device) -> float:
    """Return how much memory is free on a device."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return available_bytes()
