"""What a penalty is chosen by: a number of each held-out row, and the mean of these."""

from math import inf, isfinite, nan

import torch
from torch import Tensor

from linprobe.core.sums import Sums
from linprobe.probes.base import PathPoint
from linprobe.probes.config import Criterion
from linprobe.probes.scores import sample_errors, sample_losses


def score(point: PathPoint, by: Criterion) -> tuple[float, float]:
    """Give what the choice minimises; the second number decides where the first are equal."""
    loss, error = point.validation_cross_entropy, point.validation_error_rate
    if by == "cross_entropy":
        return loss, error
    return (error if isfinite(loss) else inf), loss  # logits beyond the dtype predict nothing


def sample_scores(logits: Tensor, labels: Tensor, by: Criterion) -> Tensor:
    """Compute the numbers of rows whose mean is the score: (n_samples,) from (K, n_samples)."""
    return (sample_losses if by == "cross_entropy" else sample_errors)(logits, labels)


def mean_and_error(values: Tensor, weight: Tensor | None, sums: Sums) -> tuple[float, float]:
    """Compute the weighted mean of independent values, and its standard error."""
    weight = torch.ones_like(values) if weight is None else weight
    n, size = sums.total(torch.stack([weight.new_tensor(len(values)), weight.sum()])).tolist()
    share = weight / size if size else weight
    mean = float(sums.total(share @ values))
    square = float(sums.total((share * (values - mean)).square().sum()))
    return mean, (square * n / (n - 1)) ** 0.5 if n > 1 else nan
