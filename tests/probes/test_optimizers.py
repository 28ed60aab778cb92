"""Updates are those of PyTorch's own optimisers."""

import pytest
import torch

from linprobe.probes.optimizers import adam_update, sgd_update

RATES = (0.1, 0.1, 0.02, 0.3)
CASES = {
    "adam": (adam_update, lambda held: torch.optim.Adam(held)),
    "momentum": (lambda p: sgd_update(p, 0.9), lambda held: torch.optim.SGD(held, momentum=0.9)),
    "plain": (lambda p: sgd_update(p, 0.0), lambda held: torch.optim.SGD(held)),
}


def moved(make, optimizer_of, rates=RATES):
    """Return parameters after our updates, and after those of `torch.optim`."""
    source = torch.Generator().manual_seed(0)
    ours = torch.randn(7, generator=source)
    theirs = torch.nn.Parameter(ours.clone())
    update, optimizer = make(ours), optimizer_of([theirs])
    for rate, other in zip(rates, RATES, strict=True):
        gradient = torch.randn(7, generator=source)
        update(gradient, rate)
        theirs.grad = gradient.clone()
        optimizer.param_groups[0]["lr"] = other
        optimizer.step()
    return ours, theirs.detach()


@pytest.mark.parametrize("name", CASES)
def test_parameters_move_as_those_of_torch_optim(name):
    torch.testing.assert_close(*moved(*CASES[name]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_the_comparison_would_notice_another_rate(name):
    ours, theirs = moved(*CASES[name], rates=(0.1, 0.1, 0.03, 0.3))
    assert not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)
