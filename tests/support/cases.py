"""Problems that several test modules share."""

from dataclasses import dataclass

import torch
from torch import Tensor

from linprobe.core.features import Standardisation


@dataclass(frozen=True)
class Case:
    """Standardised features and labels of a small softmax regression."""

    name: str
    features: Tensor
    labels: Tensor
    num_classes: int


def make_case(name: str, n: int, d: int, k: int, *, decay: float = 1.0, noise: float = 1.0) -> Case:
    """Gaussian features with a power-law spectrum; labels from a planted probe with noise."""
    generator = torch.Generator().manual_seed(len(name) + n + d + k)
    features = torch.randn(n, d, generator=generator, dtype=torch.float64)
    features *= torch.arange(1, d + 1, dtype=torch.float64) ** -decay
    planted = torch.randn(d, k, generator=generator, dtype=torch.float64)
    scores = features @ planted
    scores = scores / scores.std() + noise * torch.randn(scores.shape, generator=generator)
    labels = scores.argmax(1)
    labels[:k] = torch.arange(k)  # every class occurs
    Standardisation.fit_(features)
    return Case(name, features, labels, k)


CASES = [
    make_case("plain", 400, 8, 3),
    make_case("separable", 200, 20, 4, noise=0.0),
    make_case("wide", 40, 100, 3),
    make_case("steep", 500, 30, 5, decay=3.0),
    make_case("two classes", 300, 6, 2),
    make_case("one feature", 200, 1, 3),
]


def tilted(n: int, seed: int, size: float = 3e-7, mean: float = 10.0) -> tuple[Tensor, Tensor]:
    """Two classes apart by 4 deviations in one direction, of `size`, across the columns' noise.

    Returns:
        Features (n, 20) float64 around `mean`, and labels; float32 keeps of what tells the classes
        apart little more than its rounding, though that is a millionth of what varies.
    """
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    features = torch.randn(n, 20, generator=draw, dtype=torch.float64)
    features[:, 0] = size * (features[:, 0] + 4 * labels - 2)
    turn = torch.randn(20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return features @ torch.linalg.qr(turn).Q + mean, labels
