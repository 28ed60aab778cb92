"""Drawn problems: shapes that people have and the paper's networks do not.

- ``vit-equal``, ``vit-zipf``: pooled features of a vision transformer, many classes. Variances fall
  as the inverse of the column, as such features' do; class means are drawn with the same variances.
  Sizes of classes are equal, or fall as the inverse of the class.
- `few_rows`: two classes on few rows of many features, as in probes of language models.
"""

import torch
from torch import Tensor

VIT = ("vit-equal", "vit-zipf")
"""Names that stand for a layer in a job."""

_BETWEEN = 0.35  # standard deviation of class means, over that within a class
_FALL = 0.7  # of a column's deviation: its number to minus this power


def vit(name: str, num_rows: int, num_features: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """Draw features (num_rows, num_features) float32, not standardised, and labels."""
    draw = torch.Generator().manual_seed(0)
    means = torch.randn(num_classes, num_features, generator=draw)
    share = torch.ones(num_classes, dtype=torch.float64)
    if name == "vit-zipf":
        share /= torch.arange(1, num_classes + 1)
    # Each class has a row; the others are drawn.
    rest = torch.multinomial(share, num_rows - num_classes, replacement=True, generator=draw)
    labels = torch.cat([torch.arange(num_classes), rest])
    features = torch.randn(num_rows, num_features, generator=draw)
    for rows in torch.arange(num_rows).split(8192):
        features[rows] += _BETWEEN * means[labels[rows]]
    return features.mul_(torch.arange(1, num_features + 1).float().rsqrt()), labels


def few_rows(rows: int, features: int, strength: float, seed: int) -> tuple[Tensor, Tensor]:
    """Draw rows (rows, features) float32 and labels, 0 or 1.

    Args:
        rows: n.
        features: D.
        strength: distance of the classes' means.
        seed: of the rows; the means do not change with it.
    """
    means = torch.randn(features, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(seed)
    deviation = torch.arange(1, features + 1).float() ** -_FALL
    labels = torch.randint(2, (rows,), generator=draw)
    noise = torch.randn(rows, features, generator=draw)
    return (noise + strength * (labels[:, None] - 0.5) * means) * deviation, labels
