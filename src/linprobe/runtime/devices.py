"""Devices that PyTorch computes on."""

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


def free_bytes(device: torch.device) -> float:
    """Return how much memory is free on a device."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return available_bytes()
