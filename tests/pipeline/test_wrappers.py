"""Networks inside wrappers, and with weights that are loaded for each call."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import distributed, nn

import linprobe
from linprobe.runtime.errors import LinprobeError
from tests.activations.test_inference import Loads
from tests.support.nets import images

OPTIONS = {"method": linprobe.ProbeConfig(l2_path=1e-2)}


class Net(nn.Module):
    """Has a parameter of its own beside its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([2.0]))
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.fc = nn.Linear(72, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.norm(self.conv(self.scale * x)).relu().flatten(1))


class Holder(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    store = distributed.FileStore(str(tmp_path_factory.mktemp("store") / "file"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net().train()


def probe(network: nn.Module, layers: object = ("conv", "norm", "fc")) -> linprobe.ProbeReport:
    layers = list(layers) if isinstance(layers, tuple) else layers
    data = images(60), images(30, seed=1)
    return linprobe.probe(network, *data, layers=layers, progress=False, **OPTIONS)


def weights(report: linprobe.ProbeReport) -> list[list[float]]:
    return [probe.weight.flatten().tolist() for probe in report.values()]


WRAPPERS = {
    "DataParallel": nn.DataParallel,
    "DDP": nn.parallel.DistributedDataParallel,
    "compiled": lambda net: torch.compile(net, backend="eager"),
    "compiled DDP": lambda net: torch.compile(
        nn.parallel.DistributedDataParallel(net), backend="eager"
    ),
    "DDP of compiled": lambda net: nn.parallel.DistributedDataParallel(
        torch.compile(net, backend="eager")
    ),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.usefixtures("one_process")
def test_a_wrapped_network_is_probed_as_the_one_inside(net: Net, wrap) -> None:
    plain = probe(net, None)
    assert list(plain) == ["conv", "norm", "fc"]
    wrapped = wrap(copy.deepcopy(net))
    found = probe(wrapped, None)
    assert list(found) == list(plain)
    assert weights(found) == weights(plain)
    assert found.run.config.extraction.network == "Net"
    example = images(2)[0]
    assert linprobe.layers(wrapped, example).names == linprobe.layers(net, example).names
    tapped = linprobe.Taps(wrapped, ["fc", ""])(example)
    assert torch.equal(tapped["fc"], tapped[""])
    torch.compiler.reset()


def test_a_wrapper_inside_a_network_leaves_no_trace_in_names(net: Net) -> None:
    holder = Holder(nn.DataParallel(copy.deepcopy(net)))
    assert linprobe.layers(holder, images(2)[0]).names == (
        *("inner.conv", "inner.norm", "inner.fc", "inner"),
    )
    assert weights(probe(holder, ("inner.conv",))) == weights(probe(net, ("conv",)))


def test_a_forward_function_is_given_the_network_as_it_was_given(net: Net) -> None:
    wrapped = nn.DataParallel(net)
    seen = []
    options = linprobe.ExtractionOptions(
        forward=lambda network, batch: seen.append(network) or network.module(batch[0])
    )
    data = images(60), images(30, seed=1)
    linprobe.probe(wrapped, *data, layers="conv", extraction=options, **OPTIONS)
    assert set(seen) == {wrapped}


@pytest.mark.parametrize("layers", [("conv", "norm", "fc"), ("conv",)])
def test_weights_that_are_loaded_for_each_call(net: Net, layers: tuple[str, ...]) -> None:
    """The network's own parameter stays loaded where a pass ends before the network does."""
    offloaded = copy.deepcopy(net)
    for module in [*offloaded.modules()]:
        Loads(module)
    places = {name: id(p) for name, p in offloaded.named_parameters()}
    assert weights(probe(offloaded, layers)) == weights(probe(net, layers))
    assert all(p.is_meta for p in offloaded.parameters())
    assert places == {name: id(p) for name, p in offloaded.named_parameters()}


def test_weights_that_nothing_loads_are_refused(net: Net) -> None:
    empty = copy.deepcopy(net).to("meta")
    with pytest.raises(LinprobeError, match="parameters on the device 'meta', without values"):
        probe(empty)
    empty.register_forward_pre_hook(lambda *_: None)
    with pytest.raises(LinprobeError, match="meta"):
        probe(empty)


def test_an_activation_without_values_is_refused() -> None:
    network = Holder(nn.Identity())
    network.inner.forward = lambda x: torch.empty_like(x, device="meta")
    with pytest.raises(LinprobeError, match="layer 'inner' gives a tensor on the device 'meta'"):
        probe(network, ("inner",))
