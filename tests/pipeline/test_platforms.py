"""Systems without `resource`, and devices without float64, by stand-ins."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import linprobe
from linprobe.activations.extract import Extractor
from linprobe.activations.options import ExtractionOptions
from linprobe.data import batches
from linprobe.data.batches import Batch
from linprobe.data.inputs import Source
from linprobe.data.splits import Split
from linprobe.runtime import devices
from tests.support.nets import Encoder, ResNet, images, sentences

METHOD = linprobe.ProbeConfig(l2_path=1e-2)
SAID = "Probes were solved on the CPU: cpu has no float64, which certificates need."

WINDOWS = """
import sys
for name in ("resource", "fcntl", "termios", "pwd", "grp", "readline"):
    sys.modules[name] = None  # an import of it fails, as on Windows
import pathlib, numpy as np, torch
torch.set_num_threads(1)
import linprobe
from linprobe.cli.main import main
from linprobe.records import environment
environment._STATUS = pathlib.Path("absent")  # there is no /proc
assert environment.peak_rss_bytes() == 0
rng, y = np.random.default_rng(0), np.arange(60) % 2
x = (rng.normal(size=(60, 4)) + y[:, None]).astype("float32")
net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
report = linprobe.probe(net, (x, y), (x, y), method=linprobe.ProbeConfig(l2_path=1e-2))
report.save(sys.argv[1])
assert main(["show", sys.argv[1]]) == 0
print(linprobe.load_run(sys.argv[1]).peak_rss_bytes)
"""


def test_a_system_without_the_modules_of_unix(tmp_path):
    call = [sys.executable, "-c", WINDOWS, str(tmp_path / "run")]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 probes converged" in done.stdout
    assert done.stdout.splitlines()[-1] == "0"


@pytest.fixture
def no_float64(monkeypatch):
    for module in (devices, batches):
        monkeypatch.setattr(module, "supports_float64", lambda device: False)


@pytest.mark.usefixtures("no_float64")
def test_probes_of_a_network_are_solved_on_the_cpu_and_it_is_said(tmp_path):
    data = images(60), images(30, seed=1)
    report = linprobe.probe(ResNet().eval(), *data, layers="fc", method=METHOD)
    assert SAID in report.notes
    assert report.run.config.device == "cpu"
    report.save(tmp_path / "run")
    assert SAID in linprobe.load_report(tmp_path / "run").notes


def test_probes_of_features_are_solved_on_the_cpu_and_are_the_same(monkeypatch):
    x, y = images(60)
    x = {"pixels": x.flatten(1)}
    plain = linprobe.fit_probes(x, y, (x, y), method=METHOD)
    assert not plain.notes or SAID not in plain.notes
    monkeypatch.setattr(devices, "supports_float64", lambda device: False)
    found = linprobe.fit_probes(x, y, (x, y), method=METHOD)
    assert SAID in found.notes
    assert torch.equal(found["pixels"].weight, plain["pixels"].weight)
    fitted = linprobe.fit_probe(x["pixels"], y, x["pixels"], y, METHOD)
    assert fitted.weight.device == torch.device("cpu")


class NoFloat64(TorchDispatchMode):
    """Raises where a tensor in float64 is made, as Apple's mps does."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64:
                raise TypeError(f"{func} makes float64")
        return made


@pytest.mark.usefixtures("no_float64")
@pytest.mark.parametrize("reduce", ["flatten", "mean", "max", "pool:2", "random:3"])
def test_what_runs_on_the_networks_device_needs_no_float64_of_images(reduce):
    x, y = images(20)
    assert_no_float64(ResNet().eval(), (x, y), ["layer1", "fc"], reduce=reduce)


@pytest.mark.usefixtures("no_float64")
@pytest.mark.parametrize("tokens", ["mean", "last", "first", -2, "all"])
def test_what_runs_on_the_networks_device_needs_no_float64_of_tokens(tokens):
    words, mask, labels = sentences(20)
    data = {"input_ids": words, "attention_mask": mask}
    data["labels"] = labels if tokens == "all" else labels[:, 0]
    assert_no_float64(Encoder().eval(), data, ["encoder"], tokens=tokens)


def assert_no_float64(network, data, layers, **options):
    extractor = Extractor(network, ExtractionOptions(**options), 0, torch.device("cpu"))
    split = Split.read(Source(data, "train", 8), extractor.options.tokens)
    taps = {layer: layer for layer in layers}
    with NoFloat64():
        with pytest.raises(TypeError, match="makes float64"):
            torch.ones(1).double()
        batch = split.source.first().head(2)
        points, _ = extractor.plan(taps, batch, len(split.labels), 1e9, skip_unfit=False)
        features = extractor.extract(split, points)
    assert [x.dtype for x in features.values()] == [torch.float32] * len(layers)


@pytest.mark.usefixtures("no_float64")
def test_arrays_in_float64_become_float32_for_the_network():
    raw = {"x": np.ones((2, 3)), "ids": np.arange(2), "labels": np.arange(2)}
    moved = Batch.read(raw, "train").to(torch.device("cpu"))
    assert moved.raw["x"].dtype == moved.kwargs["x"].dtype == torch.float32
    assert moved.kwargs["ids"].dtype == torch.int64
    kept = Batch.read(raw, "train").to(torch.device("cpu"), torch.float16)
    assert kept.kwargs["x"].dtype == torch.float16
