"""Devices by name, and their memory."""

from types import SimpleNamespace

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


def test_devices_without_float64_are_told(monkeypatch):
    assert devices.supports_float64(torch.device("cpu"))
    mps = torch.device("mps")
    assert not devices.supports_float64(mps)  # nor is there one here
    place, (said,) = devices.solving_device(mps)
    assert place == torch.device("cpu")
    assert said == "Probes were solved on the CPU: mps has no float64, which certificates need."
    monkeypatch.setattr(torch, "ones", lambda *_, **options: options)
    assert devices.supports_float64(mps)
    assert devices.solving_device(mps) == (mps, ())


@pytest.mark.parametrize(("device", "asked"), [("mps:0", ()), ("xpu:1", ("xpu:1",))])
def test_random_numbers_of_every_device_come_back(device, asked, monkeypatch):
    calls = []

    def set_rng_state(state, *place):
        calls.append((state, place))

    module = SimpleNamespace(get_rng_state=lambda *place: ("state", place))
    module.set_rng_state = set_rng_state
    monkeypatch.setattr(torch, "get_device_module", lambda name: module)
    before = torch.get_rng_state()
    places = [torch.device(name) for name in ("cpu", "meta", device, device)]
    with pytest.raises(ZeroDivisionError), devices.kept_random(places):
        torch.rand(3)
        raise ZeroDivisionError
    assert calls == [(("state", asked), asked)]
    assert torch.equal(torch.get_rng_state(), before)
