"""Images that a network can learn."""

import pytest
import torch
from torch import Tensor

from tests.support.nets import seeded


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Ten kinds of image, one bright bar each, with noise."""
    noise = torch.randint(100, (200, 28, 28), dtype=torch.uint8, generator=seeded(0))
    for index in range(200):
        noise[index, 2 * (index % 10) + 4] += 150
    return noise


@pytest.fixture(scope="module")
def labels() -> Tensor:
    return torch.arange(200) % 10
