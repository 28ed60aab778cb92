"""What operations tell of the dimensions of activations."""

import pytest
import torch
from torch import nn

from linprobe.activations.layers import run_network
from linprobe.activations.layout import Layouts
from linprobe.activations.taps import Taps
from linprobe.data.inputs import example_batch


def followed(network, example, taps=("",), forward=None):
    """Features and origin of taps, in a pass that is followed to its end."""
    layouts, found = Layouts(), {}
    batch = example_batch(example)

    def note(tap, tensor):
        found[tap] = layouts.of(tensor)

    def run():
        run_network(network, batch, forward, lambda moved: layouts.following(network, moved))

    Taps(network, taps).stream_during(note, run, to_the_end=True)
    return {
        tap: (None if f.features is None else sorted(f.features), f.origin)
        for tap, f in found.items()
    }


class Makes(nn.Module):
    """Gives what a function makes of its input."""

    def __init__(self, make, *inner):
        super().__init__()
        self.inner = nn.ModuleList(inner)
        self.make = make

    def forward(self, x):
        return self.make(x, *self.inner)


def after(make, *inner, shape=(2, 5, 6)):
    torch.manual_seed(0)
    return followed(Makes(make, *inner), torch.randn(*shape))[""][0]


def test_modules_around_a_layer_tell_its_channels():
    network = nn.Sequential(
        nn.Identity(),
        nn.Conv1d(3, 8, 3),
        nn.ReLU(inplace=True),
        nn.Sequential(nn.GroupNorm(2, 8), nn.GELU(), nn.Dropout()),
        nn.AvgPool1d(2),
        nn.Linear(4, 5),  # mixes places
        nn.Flatten(),
        nn.Linear(40, 2),
    )
    taps = [":in", *map(str, range(8))]
    found = followed(network, torch.randn(2, 3, 10), taps)
    assert [found[tap][0] for tap in taps] == [[1]] * 7 + [[1], [1]]
    assert {origin for _, origin in found.values()} == {"0"}


LINEAR, CONV = nn.Linear(6, 6), nn.Conv1d(5, 8, 3)


@pytest.mark.parametrize(
    ("make", "inner", "expected"),
    [
        (lambda x, f: f(x), (LINEAR,), [2]),
        (lambda x, f: f(x).transpose(1, 2), (LINEAR,), [1]),
        (lambda x, f: f(x).mT.mT, (LINEAR,), [2]),
        (lambda x, f: f(x).permute(1, 0, 2)[-1:], (LINEAR,), [2]),
        (lambda x, f: f(x)[:, 0], (LINEAR,), [1]),
        (lambda x, f: f(x)[:, None, ..., 1:], (LINEAR,), [3]),
        (lambda x, f: f(x)[torch.arange(2), torch.tensor([0, 3])], (LINEAR,), [1]),
        (lambda x, f: f(x)[x[..., 0] < 9], (LINEAR,), [1]),
        (lambda x, f: f(x).mean(1), (LINEAR,), [1]),
        (lambda x, f: f(x).amax(dim=2), (LINEAR,), []),
        (lambda x, f: f(x).unbind(1)[2], (LINEAR,), [1]),
        (lambda x, f: f(x).view(2, 5, 2, 3), (LINEAR,), [2, 3]),
        (lambda x, f: f(x).view(2, 5, 2, 3).transpose(1, 2), (LINEAR,), [1, 3]),
        (lambda x, f: f(x).view(2, 5, 2, 3).transpose(1, 2).flatten(2), (LINEAR,), [1, 2]),
        (lambda x, f: f(x).view(10, 6).view(2, 5, 6), (LINEAR,), [2]),
        (lambda x, f: torch.cat([x[:, :1], f(x)], 1) * 2, (LINEAR,), [2]),
        (lambda x, f: torch.einsum("ntd,de->nte", f(x), torch.ones(6, 4)), (LINEAR,), [2]),
        (lambda x, f: torch.einsum("ntd,nsd->nts", f(x), f(x)), (LINEAR,), []),
        (lambda x, f: f(x) @ torch.ones(6, 3), (LINEAR,), [2]),
        (lambda x, f: (f(x) @ f(x).mT).softmax(-1) @ f(x), (LINEAR,), [2]),
        (lambda x, f: f(f(x).transpose(1, 2)[..., [0] * 6]), (LINEAR,), [1]),  # mixes tokens
        (lambda x, f: f(x), (CONV,), [1]),
        (lambda x, f: f(x).transpose(1, 2).sigmoid(), (CONV,), [2]),
        (lambda x, f: f(x[:, :, None].expand(2, 5, 4, 6)), (nn.Conv2d(5, 8, 3),), [1]),
        (lambda x, f: f(x)[0], (nn.GRU(6, 4, batch_first=True),), [2]),
        (lambda x, f: f(x, x, x)[0], (nn.MultiheadAttention(6, 2, batch_first=True),), [2]),
        (lambda x, f: f(x), (nn.TransformerEncoderLayer(6, 2, 8, batch_first=True),), [2]),
        (lambda x, f: f(x), (nn.LayerNorm(6),), [2]),
        (lambda x, f: f(x), (nn.BatchNorm1d(5),), [1]),
        (lambda x: x.tanh(), (), None),
        (lambda x: torch.einsum("nt,td->nd", torch.ones(2, 3), torch.ones(3, 4)), (), None),
        (lambda x, f: torch.einsum("n...,n...->n...", f(x), f(x)), (LINEAR,), None),
        (lambda x, f: f(x).reshape(4, 5, 3).view(20, 3), (LINEAR,), [1]),
        (lambda x, f: f(x).mT.reshape(4, 15), (LINEAR,), None),  # windows of several samples
        (lambda x, f, g: g(f(x).mT.reshape(4, 15)), (LINEAR, nn.Linear(15, 2)), [1]),
    ],
)
def test_operations_carry_on_where_features_are(make, inner, expected):
    assert after(make, *inner) == expected


class Opaque(torch.autograd.Function):
    """An operation of somebody's own, which can't be followed."""

    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        return grad


def test_modules_of_opaque_operations():
    conv = nn.Sequential(nn.Conv1d(3, 4, 3), Makes(Opaque.apply))
    assert followed(conv, torch.randn(2, 3, 8)) == {"": ([1], "0")}

    class QuantisedLinear(nn.Module):
        def forward(self, x):
            return Opaque.apply(x)

    class QuantisedConv1d(QuantisedLinear):
        pass

    assert followed(QuantisedLinear(), torch.randn(2, 5, 6))[""][0] == [2]
    assert followed(QuantisedConv1d(), torch.randn(2, 5, 6))[""][0] == [1]


def test_an_operation_tells_of_the_inputs_that_lead_to_it():
    network = Makes(lambda x, gru: gru(x.relu().transpose(1, 2))[0], nn.GRU(5, 4, batch_first=True))
    found = followed(network, torch.randn(2, 5, 6), [":in", "inner.0:in", ""])
    assert [found[tap][0] for tap in (":in", "inner.0:in", "")] == [[1], [2], [2]]


def test_tokens_come_from_an_input():
    network = Makes(None, nn.Embedding(9, 4), nn.Conv2d(3, 4, 2), nn.Linear(4, 4))

    def forward(net, batch):
        words, patches, mix = net.inner
        text = mix(words(batch["input_ids"]) + words(torch.arange(7))[None])
        picture = patches(batch["pixel_values"]).flatten(2).transpose(1, 2)
        cross = mix(text) @ mix(picture).mT
        net(torch.cat([torch.zeros(2, 1, 4), picture], 1))
        return net(cross.softmax(-1) @ picture)

    network.make = lambda x, *_: x
    example = {"input_ids": torch.zeros(2, 7).long(), "pixel_values": torch.randn(2, 3, 5, 5)}
    found = followed(network, example, ["", "#2"], forward)
    assert found == {"": ([2], "pixel_values"), "#2": ([2], "input_ids")}


def test_a_mode_is_left_behind_by_nothing():
    network = nn.Linear(3, 3)
    followed(network, torch.randn(2, 3))
    assert not network._forward_hooks and not network._forward_pre_hooks
    assert torch.overrides._get_current_function_mode_stack() == []
