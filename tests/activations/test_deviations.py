"""Deviations from one sample are those of the network, without the rounding of what is constant."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from linprobe.activations.deviations import Deviations, forward_from, select_base, select_delta
from linprobe.activations.extract import Extractor
from linprobe.activations.options import ExtractionOptions
from linprobe.activations.taps import Taps
from linprobe.activations.widened import in_float64
from linprobe.data.batches import Batch

DRAWS = torch.Generator().manual_seed(0)
X, Y = torch.randn(40, 6, generator=DRAWS), torch.arange(40) % 2


class Skip(nn.Module):
    """Dense layers of every kind that is known, and a skip connection."""

    def __init__(self, *more):
        super().__init__()
        self.one = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.1), nn.Dropout(0.5))
        self.two = nn.Sequential(nn.Linear(14, 8, bias=False), nn.ReLU(inplace=True), *more)

    def forward(self, x):
        once = self.one(x)
        return self.two(torch.cat([once + once, x], dim=1))


def read(network, layers, batch=None, **options):
    batch = batch or Batch.read((X, Y), "train")
    options = ExtractionOptions(**{"reduce": "flatten", "tokens": None} | options)
    own = Extractor(network, options, 0, torch.device("cpu"))
    points, _ = own.plan({n: n for n in layers}, batch, 40, 1e9, skip_unfit=False)
    return in_float64(own, points, batch)


def test_base_and_deviations_add_up_to_what_the_network_gives():
    network = Skip().double().eval()
    taps = [":in", "one", "two", "two.0"]
    plain = Taps(network, taps)(X.double())
    run = forward_from(X[:1].double())
    parts = []
    for select in (select_base, select_delta):
        found = {}
        Taps(network, taps, select).stream_during(
            found.__setitem__, lambda: run(network, (X.double(), Y))
        )
        parts.append(found)
    for tap in taps:
        assert parts[0][tap].shape[0] == 1
        assert not parts[1][tap][0].any()  # the sample itself
        torch.testing.assert_close(parts[0][tap] + parts[1][tap], plain[tap])


def test_what_varies_by_1e_30_of_the_constant_is_exact():
    small = Skip().double().eval()
    with torch.no_grad():
        small.one[0].bias.zero_()
    large = deepcopy(small)
    with torch.no_grad():
        large.one[0].weight.mul_(1e-20), large.one[0].bias.fill_(1e10)
        small.one[0].bias.fill_(100.0)  # on the same side of zero
    one, other = (
        network.one(Deviations(X[:1].double(), (X - X[:1]).double())) for network in (small, large)
    )
    torch.testing.assert_close(1e20 * other.delta, one.delta, rtol=1e-12, atol=0)


def test_networks_of_dense_layers_are_read_so_and_others_are_not():
    wide, points, failures = read(Skip(), ["one", "two"])
    assert not failures and wide.options.select is select_delta
    assert [point.base.shape for point in points] == [(8,), (8,)]
    for network in (Skip(nn.Tanh()), Skip(nn.BatchNorm1d(8)), Skip(nn.Unflatten(1, (2, 4)))):
        wide, points, failures = read(network, ["two"])
        assert not failures and points[0].base is None and wide.options.select is None


@pytest.mark.parametrize(
    "options",
    [
        {"forward": lambda network, batch: network(batch[0])},
        {"select": lambda tap, value: value},
        {"reduce": "random:3"},
    ],
)
def test_options_of_ones_own_leave_float64_alone(options):
    _, points, failures = read(Skip(), ["one"], **options)
    assert not failures and points[0].base is None


def test_inputs_that_are_no_single_tensor_leave_float64_alone():
    class Pair(Skip):
        def forward(self, x, other):
            return super().forward(x + other)

    _, points, _ = read(Pair(), ["one"], Batch.read((X, X, Y), "train"))
    assert points[0].base is None
