"""A copy in float64 of every kind of network, or a reason why there is none."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from linprobe.activations import widened
from linprobe.data.batches import Batch
from linprobe.runtime.errors import LinprobeError
from tests.support.extraction import extractor, planned

X, Y = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2
BATCH = Batch.read((X, Y), "train")


def layers_in_float64(network, layers, batch=BATCH, **options):
    """Names of the layers that are, and why the others are not."""
    own = extractor(network, None, **options)
    points, _ = planned(own, layers, batch, 8)
    wide, found, failures = widened.in_float64(own, points, batch)
    assert all(point.dtype == torch.float64 for point in found)
    assert wide.network is not network
    return [point.layer for point in found], failures


class Wired(nn.Module):
    """Tensors of every kind: registered or not, shared, whole, complex."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
        self.other.running_mean = self.one.running_mean
        self.tied = nn.Linear(4, 4)
        self.head = nn.Linear(4, 4)
        self.head.weight = self.tied.weight
        self.plain = torch.full((4,), 0.1)
        self.register_buffer("whole", torch.arange(4))
        self.register_buffer("turn", torch.ones(4, dtype=torch.complex64))

    def forward(self, x):
        x = self.other(self.one(x + self.plain))
        return self.head(self.tied((x * self.turn).real))[:, self.whole]


def state(network):
    return {k: (v.dtype, v.clone(), v.data_ptr()) for k, v in network.state_dict().items()}


def test_a_copy_has_all_tensors_in_float64_and_shares_them_as_before():
    network = Wired()
    before, modes = state(network), [m.training for m in network.modules()]
    made = widened.float64_copy(network)
    assert made.plain.dtype == torch.float64 and made.turn.dtype == torch.complex128
    assert made.whole.dtype == torch.int64
    assert made.other.running_mean is made.one.running_mean
    assert made.head.weight is made.tied.weight and made.tied.weight.dtype == torch.float64
    with torch.no_grad():
        made.plain.zero_(), made.tied.weight.zero_(), made.whole.zero_()
    after = state(network)
    for name, (dtype, value, place) in before.items():
        assert after[name][0] == dtype and after[name][2] == place
        assert torch.equal(after[name][1], value)
    assert network.plain[0] == pytest.approx(0.1) and network.plain.dtype == torch.float32
    assert [m.training for m in network.modules()] == modes


def test_every_layer_of_a_plain_network_is_read_in_float64():
    assert layers_in_float64(Wired(), [":in", "one", "tied", ""]) == (
        [":in", "one", "tied", ""],
        {},
    )


class Cast(nn.Module):
    """Gives float64 of float32 numbers."""

    def __init__(self, how):
        super().__init__()
        self.first, self.how, self.second = nn.Linear(4, 4), how, nn.Linear(4, 4)

    def forward(self, x):
        return self.second(self.how(self.first(x)).to(self.second.weight.dtype))


def into_place(x):
    room = torch.zeros(x.shape)
    room[:] = x
    return room


@pytest.mark.parametrize(
    "how",
    [
        lambda x: x.float(),
        lambda x: x.to(torch.float32),
        lambda x: x.type(torch.float32),
        lambda x: x.softmax(1, dtype=torch.float32),
        into_place,
    ],
)
def test_layers_after_a_cast_inside_the_network_are_not_in_float64(how):
    found, failures = layers_in_float64(Cast(how), ["first", "second"])
    assert found == ["first"]
    assert failures == {"second": "the network's own code computes in float32 there or before"}


class Half(nn.Module):
    def forward(self, x):
        return x.bfloat16()


def test_the_dtype_of_a_cast_is_named():
    _, failures = layers_in_float64(nn.Sequential(nn.Linear(4, 4), Half()), ["1"])
    assert failures["1"] == "the network's own code computes in bfloat16 there or before"


def test_what_multiplies_by_a_single_number_casts_nothing():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.scale = nn.Linear(4, 4), nn.Parameter(torch.tensor(2.0))
            self.made = None

        def forward(self, x):
            self.made = torch.ones(4) * self.scale  # float32: made anew, not of what is computed
            return self.linear(x) * self.made

    assert layers_in_float64(Scaled(), [""]) == ([""], {})


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        lambda network: torch.compile(network, backend="eager"),
        lambda network: nn.Sequential(torch.compile(network, backend="eager"))[0],
        lambda network: network.bfloat16(),
        lambda network: network.half(),
    ],
)
def test_wrapped_and_short_networks_are_copied_too(wrap):
    network = wrap(nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True)))
    assert layers_in_float64(network, ["0", "1"]) == (["0", "1"], {})


def test_what_a_user_calls_by_forward_gets_float64():
    network = nn.Sequential(nn.Linear(4, 4))
    found = layers_in_float64(network, ["0"], forward=lambda net, batch: net(batch[0]))
    assert found == (["0"], {})


def test_a_network_without_parameters_gets_float64():
    assert layers_in_float64(nn.Sequential(nn.Tanh()), ["0"]) == (["0"], {})


def test_whole_numbers_stay_whole():
    batch = Batch.read((torch.arange(8) % 3, Y), "train")
    assert layers_in_float64(nn.Sequential(nn.Embedding(3, 4)), ["0"], batch) == (["0"], {})


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


class Odd(nn.Module):
    def __init__(self, run):
        super().__init__()
        self.linear, self.run = nn.Linear(4, 4), run

    def forward(self, x):
        return self.run(self.linear(x))


def autocast(x):
    with torch.autocast("cpu", torch.bfloat16):
        return x @ torch.eye(4, dtype=x.dtype)


@pytest.mark.parametrize("run", [Doubled.apply, autocast], ids=["autograd", "autocast"])
def test_functions_of_ones_own_and_autocast_keep_float64(run):
    assert layers_in_float64(Odd(run), [""]) == ([""], {})


def test_parametrised_weights_are_computed_in_float64():
    network = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4)))
    assert layers_in_float64(network, ["0"]) == (["0"], {})


def test_the_users_own_forward_that_runs_another_network_gives_a_reason():
    network = nn.Sequential(nn.Linear(4, 4))
    _, failures = layers_in_float64(
        network, ["0"], forward=lambda _, batch: network(batch[0].float())
    )
    assert failures["0"].startswith("the forward pass did not reach '0' (never called)")


def assert_no_copy(network, message):
    with pytest.raises(LinprobeError, match=message):
        layers_in_float64(network, [""])


def test_networks_that_take_float32_alone_give_a_reason():
    odd = Odd(lambda x: x @ torch.eye(4))
    assert_no_copy(odd, "the network fails on a batch of 8 samples: RuntimeError: expected")


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantised_networks_give_a_reason():
    network = nn.Sequential(torch.ao.nn.quantized.dynamic.Linear(4, 4))
    assert_no_copy(network, "the network fails on a batch")


def test_networks_that_refuse_to_be_copied_give_a_reason():
    class Single(nn.Linear):
        def __deepcopy__(self, memo):
            raise TypeError("there is one of me")

    assert_no_copy(Single(4, 4), r"the network can't be copied \(TypeError: there is one of me\)")


def test_tensors_with_a_history_are_copied_without_it():
    network = nn.Linear(4, 4)
    network.last = network(X)  # deepcopy alone refuses it
    with pytest.raises(RuntimeError):
        copy.deepcopy(network)
    assert layers_in_float64(network, [""]) == ([""], {})


def test_a_copy_that_is_too_large_is_not_made(monkeypatch):
    monkeypatch.setattr(widened, "free_bytes", lambda device: 300.0)
    said = "takes 160 bytes, and 120 bytes are given to it, two fifths of the free memory"
    assert_no_copy(nn.Linear(4, 4), said)


def test_devices_without_float64_give_a_reason(monkeypatch):
    monkeypatch.setattr(widened, "supports_float64", lambda device: False)
    assert_no_copy(nn.Linear(4, 4), "device cpu has no float64; move the network to the CPU")
