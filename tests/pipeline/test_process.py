"""What the caller's process is set to, and other threads of it, change no number of a probe."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

import linprobe
from linprobe.runtime.defaults import callers_defaults, own_defaults

METHOD = linprobe.ProbeConfig(l2_path=(1e-1, 1e-2))
ALL = ("shuffled_labels", "control_task", "untrained", "random_features", "input", "majority")


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


class Asks(nn.Module):
    """Notes the settings under which it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 6)
        self.norm = nn.BatchNorm1d(6)
        self.seen: set[object] = set()

    def reset_parameters(self) -> None:
        pass

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.add((torch.get_default_device().type, torch.get_default_dtype()))
        return self.norm(self.fc(x))


@pytest.fixture(scope="module")
def data() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(80, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(80) % 2
    x[:, 0] += y
    return x, y


def numbers(data) -> list[object]:
    """All that a probe and its controls say, by every entry point."""
    torch.manual_seed(0)
    with torch.device("cpu"), default_dtype(torch.float32):
        network = Asks()
    evaluation = linprobe.EvaluationOptions(controls=ALL, repeats=1, mdl=True)
    x, y = data
    report = linprobe.probe(
        network, data, data, layers=["fc", "norm"], method=METHOD, evaluation=evaluation
    )
    fitted = linprobe.fit_probes({"x": x}, y, ({"x": x}, y), method=METHOD)
    single = linprobe.fit_probe(x, y, x, y, METHOD)
    model = linprobe.CertifiedLogisticRegression().fit(x.numpy(), y.numpy())
    certificate = linprobe.certify(x, y, single.weight, single.bias, 1e-2)
    weights = [*(p.weight for p in (*report.values(), *fitted.values())), single.weight]
    return [
        *(weight.tolist() for weight in weights),
        model.coef_.tolist(),
        certificate.duality_gap,
        [(c.name, c.layer, c.test_error_rate) for c in report.run.checkpoints[0].controls],
        *(p.record.evaluation.mdl.bits for p in report.values()),
    ]


@pytest.fixture(scope="module")
def plain(data) -> list[object]:
    return numbers(data)


SETTINGS: dict[str, Callable[[], object]] = {
    "default device": lambda: default_device("meta"),
    "device of a block": lambda: torch.device("meta"),
    "default dtype": lambda: default_dtype(torch.bfloat16),
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "numpy raises": lambda: np.errstate(all="raise"),
}


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_settings_of_the_process_change_no_number(setting, data, plain) -> None:
    with setting():
        assert numbers(data) == plain


def test_the_network_runs_under_the_callers_settings(data) -> None:
    network = Asks()
    with default_device("meta"), default_dtype(torch.float64):
        linprobe.probe(network, data, data, layers="fc", method=METHOD)
        assert torch.get_default_device().type == "meta"
        assert torch.get_default_dtype() == torch.float64
    assert network.seen == {("meta", torch.float64)}


def test_autocast_is_for_the_network_alone(data) -> None:
    network, (x, y) = Asks().eval(), data
    with torch.autocast("cpu", torch.bfloat16):
        report = linprobe.probe(network, data, data, layers="fc", method=METHOD)
        features = {"fc": linprobe.Taps(network, ["fc"])(x)["fc"]}
        assert features["fc"].dtype == torch.bfloat16
        inside = linprobe.fit_probes(features, y, (features, y), method=METHOD)
        assert torch.is_autocast_enabled("cpu")
    outside = linprobe.fit_probes(features, y, (features, y), method=METHOD)
    assert report["fc"].record.dtype == "bfloat16"
    assert torch.equal(inside["fc"].weight, outside["fc"].weight)
    assert torch.equal(report["fc"].weight, outside["fc"].weight)


def test_settings_come_back_after_an_error() -> None:
    with default_dtype(torch.float64):
        with pytest.raises(ZeroDivisionError), own_defaults():
            assert torch.get_default_dtype() == torch.float32
            with own_defaults(), callers_defaults():
                assert torch.get_default_dtype() == torch.float64
            raise ZeroDivisionError
        assert torch.get_default_dtype() == torch.float64
    with callers_defaults():
        assert torch.get_default_dtype() == torch.float32


def test_threads_that_probe_one_network_at_once(data) -> None:
    torch.manual_seed(0)
    network = Asks().train()
    found: list[object] = [None] * 3

    def run(place: int) -> None:
        report = linprobe.probe(network, data, data, layers=["fc", "norm"], method=METHOD)
        tapped = linprobe.Taps(network, ["norm"])(data[0])["norm"]
        found[place] = [*(p.weight.tolist() for p in report.values()), tapped.tolist()]

    state = torch.get_rng_state()
    threads = [threading.Thread(target=run, args=(place,)) for place in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] is not None
    assert found[0] == found[1] == found[2]
    assert network.training and network.norm.training
    assert int(network.norm.num_batches_tracked) == 0
    assert torch.equal(torch.get_rng_state(), state)
