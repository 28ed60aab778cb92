"""Devices by name, and their memory."""

import pytest
import torch

from linprobe.runtime import devices
from linprobe.runtime.errors import LinprobeError


def test_known_devices_are_found():
    assert devices.find_device("cpu") == torch.device("cpu")
    assert devices.find_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["no-such-device", "cuda:99"])
def test_others_are_refused(name):
    with pytest.raises(LinprobeError, match=f"device is '{name}', which can't be used here"):
        devices.find_device(name)


def test_memory_of_the_cpu_is_what_the_system_has(monkeypatch):
    monkeypatch.setattr(devices, "available_bytes", lambda: 12.0)
    assert devices.free_bytes(torch.device("cpu")) == 12.0
