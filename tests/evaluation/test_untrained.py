"""The untrained copy is drawn anew, by its seed alone, and the network stays as it was."""

import pytest
import torch
from torch import nn

from linprobe.evaluation.untrained import reinitialised
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.randomness import seeded


def network():
    with seeded(0):
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Linear(5, 3))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
        net[1].running_mean.fill_(7.0)
    return net


def test_weights_are_drawn_by_the_seed():
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.random.get_rng_state()
    one, again, other = (reinitialised(net, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not torch.equal(one[0].weight, net[0].weight)
    assert torch.equal(one[0].weight, again[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)
    assert float(one[1].running_mean.abs().max()) == 0.0
    bound = 1 / 5**0.5
    largest = [float(n[3].weight.detach().abs().max()) for n in (one, net)]
    assert largest[0] <= bound < largest[1]


def test_module_that_cannot_be_reset_is_named():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(3))

    with pytest.raises(LinprobeError, match=r"module '1' has parameters and no reset_parameters"):
        reinitialised(nn.Sequential(nn.ReLU(), Scale()), 0)
