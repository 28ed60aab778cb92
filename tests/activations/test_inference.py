"""Evaluating a network leaves it as it was, whatever it writes, and copies no more than it must."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from linprobe.activations.inference import inference_state, lacks_values, network_device

LARGE = 2**21  # float32: 8 MiB, beyond what is copied before a pass


class Writes(nn.Module):
    """Has a small, a large and an untouched large buffer, and writes as it is told."""

    def __init__(self, write: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        self.write = write
        self.register_buffer("small", torch.arange(3.0))
        self.register_buffer("large", torch.arange(float(LARGE)))
        self.register_buffer("weights", torch.ones(LARGE, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        self.write(self.small, self.large)
        return x


def overwrite(small: Tensor, large: Tensor) -> None:
    small += 1
    large.mul_(2)


WRITES = {
    "in place": overwrite,
    "data": lambda small, large: (small.data.zero_(), large.data.zero_()),
    "view": lambda small, large: (small[1:].fill_(5), large.view(2, -1)[1].fill_(5)),
    "item": lambda small, large: (small.__setitem__(0, 9), large.__setitem__(slice(3), 9)),
    "out": lambda small, large: (
        torch.add(small, 1, out=small),
        torch.add(large, 1, out=large),
    ),
    "foreach": lambda small, large: torch._foreach_add_([small, large], 1.0),
    "inside inference mode": lambda small, large: torch.inference_mode()(overwrite)(small, large),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_buffers_get_back_the_values_that_a_pass_wrote_over(write) -> None:
    network = Writes(write)
    small, large, weights = network.small, network.large, network.weights
    version = weights._version
    with inference_state(network):
        network(torch.ones(1))
        assert not torch.equal(small, torch.arange(3.0))
        assert not torch.equal(large, torch.arange(float(LARGE)))
    assert network.small is small and small.tolist() == [0, 1, 2]
    assert network.large is large and torch.equal(large, torch.arange(float(LARGE)))
    assert network.weights is weights and weights._version == version


def test_values_come_back_after_an_error_too() -> None:
    network = Writes(lambda small, large: (overwrite(small, large), 1 / 0))
    with pytest.raises(ZeroDivisionError), inference_state(network):
        network(torch.ones(1))
    assert network.small.tolist() == [0, 1, 2]
    assert torch.equal(network.large, torch.arange(float(LARGE)))


@pytest.mark.parametrize("features", [3, LARGE // 4])
def test_batch_norm_that_stays_in_training_gets_its_statistics_back(features: int) -> None:
    """Its version counters stand still."""

    class Stays(nn.BatchNorm1d):
        def train(self, mode: bool = True) -> nn.Module:
            return super().train(True)

    network = nn.Sequential(Stays(features))
    mean = network[0].running_mean
    version = mean._version
    with inference_state(network):
        network(torch.randn(2, features) + 3)
        assert mean.any() and mean._version == version
    assert not mean.any()
    assert int(network[0].num_batches_tracked) == 0


def copied_bytes(monkeypatch: pytest.MonkeyPatch, network: nn.Module, x: Tensor) -> int:
    """Bytes of all tensors that are cloned during one evaluation."""
    copied = []
    clone = Tensor.clone

    def counting(tensor: Tensor, **options: object) -> Tensor:
        copied.append(tensor.nbytes)
        return clone(tensor, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "clone", counting)
        with inference_state(network):
            network(x)
    return sum(copied)


def test_large_buffers_are_copied_only_where_they_are_written(monkeypatch) -> None:
    """Quantised weights would take their memory twice, and their time at each batch."""
    x = torch.ones(1)
    assert copied_bytes(monkeypatch, Writes(lambda small, large: None), x) == 12
    assert copied_bytes(monkeypatch, Writes(overwrite), x) == 12 + 4 * LARGE
    many = nn.ModuleList([Writes(lambda small, large: None) for _ in range(3)])
    many.forward = lambda x: [part(x) for part in many]
    assert copied_bytes(monkeypatch, many, x) == 3 * 12


@pytest.mark.parametrize(
    "buffer",
    [
        torch.eye(3).to_sparse(),
        torch.ones(3, device="meta"),
        torch.full((3,), float("nan")),
        torch.ones(3).to(torch.float8_e4m3fn),
        torch.tensor([float("nan")]).expand(3),
        torch.tensor([]),
        torch.inference_mode()(torch.ones)(3),
    ],
    ids=["sparse", "meta", "nan", "float8", "expanded", "empty", "inference"],
)
def test_buffers_of_any_kind(buffer: Tensor) -> None:
    network = nn.Linear(2, 2)
    network.register_buffer("odd", buffer)
    with inference_state(network):
        network(torch.ones(1, 2))
    assert network.odd is buffer


def test_a_sparse_buffer_gets_its_values_back() -> None:
    network = nn.Module()
    network.register_buffer("graph", torch.eye(3).to_sparse())
    with inference_state(network):
        network.graph.mul_(2)
    assert torch.equal(network.graph.to_dense(), torch.eye(3))


class Merges(nn.Linear):
    """Adds its low-rank part to its weight in evaluation and takes it out in training, as LoRA."""

    def __init__(self, size: int) -> None:
        super().__init__(size, size)
        self.low = nn.Parameter(torch.randn(size, size))
        self.merged = False

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        if self.merged == mode:
            self.weight.data += -self.low if mode else self.low
            self.merged = not mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.merged else super().forward(x) + x @ self.low.T


@pytest.mark.parametrize("size", [3, 1100])
def test_weights_that_a_change_of_mode_writes_to_come_back_exactly(size: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(Merges(size), nn.ReLU(), Merges(size)).train()
    network[2].eval()
    before = [p.detach().clone() for p in network.parameters()]
    with inference_state(network):
        assert network[0].merged and not torch.equal(network[0].weight, before[0])
    assert (network[0].merged, network[2].merged) == (False, True)
    assert [m.training for m in network] == [True, True, False]
    assert all(torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))


def test_networks_without_modes_or_with_modes_of_their_own() -> None:
    class Switch(nn.Module):
        def train(self) -> None:
            self.training = True

    network = nn.Sequential(nn.Dropout(), Switch())
    with inference_state(network):
        assert not any(module.training for module in network.modules())
    assert all(module.training for module in network.modules())
    exported = torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)).module()
    with inference_state(exported):
        assert exported(torch.ones(1, 2)).shape == (1, 2)


class Loads:
    """Hooks that hold a module's weights elsewhere between its calls, as accelerate's do."""

    def __init__(self, module: nn.Module) -> None:
        self.weights = {name: p.detach() for name, p in module.named_parameters(recurse=False)}
        self.execution_device = torch.device("cpu")
        module._hf_hook = self
        self.after(module)
        module.register_forward_pre_hook(self.before)
        module.register_forward_hook(self.after)

    def put(self, module: nn.Module, weights: dict[str, Tensor]) -> None:
        for name, value in weights.items():
            module._parameters[name] = nn.Parameter(value)

    def before(self, module: nn.Module, *_: object) -> None:
        self.put(module, self.weights)

    def after(self, module: nn.Module, *_: object) -> None:
        self.put(module, {name: value.to("meta") for name, value in self.weights.items()})


def test_parameters_that_hooks_put_in_place_are_gone_after_an_error() -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    Loads(network[0])
    before = network[0].weight
    network[0].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), inference_state(network):
        network(torch.ones(1, 2))
    assert network[0].weight is before and before.is_meta


def test_the_device_of_a_network() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert network_device(network) == network_device(nn.ReLU()) == torch.device("cpu")
    network[0].to("meta")
    assert network_device(network) == torch.device("cpu")
    network[1]._hf_hook = type("Hook", (), {"execution_device": "cuda:0"})()
    network[0]._hf_hook = type("Chain", (), {"hooks": [object(), network[1]._hf_hook]})()
    assert network_device(network) == torch.device("cuda:0")


def test_weights_without_values_are_told_from_those_that_hooks_load() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert not lacks_values(network)
    Loads(network[0])
    assert not lacks_values(network)
    network[1].to("meta")
    assert lacks_values(network)
    network[1].forward = network[1].forward
    assert not lacks_values(network)


class DrawsItself(nn.Module):
    def __init__(self):
        super().__init__()
        self.generators = None
        self.torch = torch.Generator().manual_seed(1)
        self.numpy = np.random.default_rng(1)
        self.old = np.random.RandomState(1)
        self.python = random.Random(1)

    def forward(self, x):
        drawn = self.numpy.random() + self.old.rand() + self.python.random()
        return x + torch.rand(1, generator=self.torch) + drawn


def test_generators_of_the_network_itself_come_back():
    network, x = DrawsItself(), torch.zeros(1)
    expected = DrawsItself()(x)
    with inference_state(network):
        network(x)
    assert torch.equal(network(x), expected)
