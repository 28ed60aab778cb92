"""Networks by name."""

import pytest
import torch
from torch import nn

from linprobe.activations.load import build_network
from linprobe.runtime.errors import LinprobeError

READY = nn.Linear(2, 2)
NUMBER = 5


def fails():
    raise ValueError("no weights\nanywhere")


def gives_a_number():
    return 5


def own(name):
    return f"{__file__}:{name}"


def test_untrained_weights_come_from_the_seed():
    before = torch.random.get_rng_state()
    first, again, other = (
        build_network("torch.nn:Linear", {"in_features": 3, "out_features": 2}, seed)
        for seed in (0, 0, 1)
    )
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_network_is_taken_as_it_is():
    assert isinstance(build_network(own("READY"), {}, 0), nn.Linear)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NUMBER", r"is a int; expected a function or class that gives a torch\.nn\.Module"),
        ("fails", r"failed: ValueError: no weights; expected .* called with \(\)"),
        ("gives_a_number", r"gave a int; expected a torch\.nn\.Module"),
    ],
)
def test_factories_that_give_no_network(name, message):
    with pytest.raises(LinprobeError, match=message) as caught:
        build_network(own(name), {}, 0)
    assert "\n" not in str(caught.value)


def test_wrong_keywords_are_shown():
    with pytest.raises(LinprobeError, match=r"TypeError: .*width.* called with \(width=3\)"):
        build_network("torch.nn:Linear", {"width": 3}, 0)
