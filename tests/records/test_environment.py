"""Provenance of a run."""

import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

import linprobe
from linprobe.records.environment import _cpu_model, environment, peak_rss_bytes


def test_environment_names_versions_and_hardware():
    found = environment(threads=3, device="cpu")
    assert found.linprobe == linprobe.__version__
    assert found.torch.split("+")[0] == torch.__version__.split("+")[0]
    assert found.python == platform.python_version()
    assert found.cpu
    assert found.threads == 3
    assert found.device == "cpu"


def test_gpu_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"A {device} model")
    assert environment(1, "cuda").device == "cuda (A cuda model)"


def test_cpu_model_is_read_from_linux_or_guessed(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Fast: CPU 9000\n")
    assert _cpu_model(info) == "Fast: CPU 9000"
    assert _cpu_model(tmp_path / "missing")


def test_peak_memory_is_in_bytes():
    before = peak_rss_bytes()
    block = np.ones(64 * 2**20 // 8)
    assert block.sum() > 0
    assert 30 * 2**20 < before < 2**40
    assert peak_rss_bytes() >= before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_peak_memory_is_not_that_of_the_parent_process():
    block = np.ones(800 * 2**20 // 8)
    assert peak_rss_bytes() > block.nbytes
    code = "from linprobe.records.environment import peak_rss_bytes; print(peak_rss_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 10 * 2**20 < int(done.stdout) < block.nbytes
