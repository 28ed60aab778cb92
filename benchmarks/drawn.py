"""Drawn problems: shapes that people have and the paper's networks do not.

- ``vit-equal``, ``vit-zipf``: pooled features of a vision transformer, many classes. Variances fall
  as the inverse of the column, as such features' do; class means are drawn with the same variances.
  Sizes of classes are equal, or fall as the inverse of the class.
- `few_rows`, ``few-rows``: two classes on few rows of many features, as in probes of language
  models. `concepts`: several label sets on such rows. Variances fall along directions of their own,
  not along columns, so that scaling the columns leaves the features as correlated as they are.
- `frames`: so many rows that they are drawn, kept and read a block at a time, as frames, tokens or
  patches give them.
"""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

VIT = ("vit-equal", "vit-zipf")
FEW = "few-rows"
DRAWN = (*VIT, FEW)
"""Names that stand for a layer in a job."""

_BETWEEN = 0.35  # standard deviation of class means, over that within a class
_FALL = 0.7  # of the deviation along a direction: its number to minus this power
_BLURRED = 0.7  # deviation of what is added to a row's distance from a plane, over its own
_APART = 2.7  # root mean square length of class means, over the deviation within a class
_DRAWN_ROWS = 8192  # at a time


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
        strength: distance of the classes' means along each direction, over its deviation.
        seed: of the rows; the means do not change with it.
    """
    means = torch.randn(features, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(seed)
    deviation = torch.arange(1, features + 1).float() ** -_FALL
    labels = torch.randint(2, (rows,), generator=draw)
    noise = torch.randn(rows, features, generator=draw)
    along = (noise + strength * (labels[:, None] - 0.5) * means) * deviation
    return along @ _directions(features), labels


def concepts(rows: int, features: int, sets: int, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw rows (rows, features) float32 and so many sets of labels, 0 or 1, by name.

    Each set asks on which side of a plane of its own the rows lie, once they are blurred.

    Args:
        rows: n.
        features: D.
        sets: number of label sets.
        seed: of the rows; the planes do not change with it.
    """
    planes = torch.randn(features, sets, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(seed)
    deviation = torch.arange(1, features + 1).float() ** -_FALL
    along = torch.randn(rows, features, generator=draw) * deviation
    side = along @ planes / (planes * deviation[:, None]).norm(dim=0)
    side += _BLURRED * torch.randn(rows, sets, generator=draw)
    x = along @ _directions(features)
    return x, {f"concept {i}": (side[:, i] > 0).long() for i in range(sets)}


@cache
def _directions(features: int) -> Tensor:
    """Draw as many orthonormal rows as there are features."""
    drawn = torch.randn(features, features, generator=torch.Generator().manual_seed(2))
    directions: Tensor = torch.linalg.qr(drawn).Q
    return directions


def frames(rows: int, features: int, classes: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw rows and their labels, some at a time.

    Variances fall as the inverse of the column within a class, and once more by that between
    classes: what tells classes apart stands mostly, but not only, in columns of large variance.

    Args:
        rows: n, at least one for each class.
        features: D.
        classes: K, of about equal sizes.
        seed: of the rows; the means do not change with it.

    Yields:
        Rows (m, features) float32 and labels (m,) int64.
    """
    deviation = torch.arange(1, features + 1).float().rsqrt()
    means = torch.randn(classes, features, generator=torch.Generator().manual_seed(0)) * deviation
    means *= _APART / deviation.norm()
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (rows,), generator=draw)
    labels[:classes] = torch.arange(classes)  # each class has a row
    for some in labels.split(_DRAWN_ROWS):
        noise = torch.randn(len(some), features, generator=draw)
        yield noise.add_(means[some]).mul_(deviation), some
