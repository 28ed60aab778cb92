"""Global random numbers are borrowed and given back."""

import random

import numpy as np
import pytest
import torch

from linprobe.runtime.randomness import generator, seeded


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_draws_are_those_of_the_seed_and_the_states_come_back():
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    outside = draw()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    with seeded(5):
        first = draw()
    with pytest.raises(RuntimeError), seeded(5):
        assert draw() == first != outside
        raise RuntimeError
    with seeded(2**40):
        assert draw() != first
    assert draw() == outside


def test_generators_belong_to_a_seed_and_a_purpose():
    first = generator(0, "a").initial_seed()
    assert first == generator(0, "a").initial_seed()
    assert first not in (generator(1, "a").initial_seed(), generator(0, "b").initial_seed())
