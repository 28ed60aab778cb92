"""The convex problem that a probe solves: THE contract between data, solvers and certificate.

For features ``x_i`` in R^D, labels ``y_i`` in {0..K-1} and sample weights ``s_i >= 0`` that sum
to one (1/n by default)

    P(W, b) = sum_i s_i CE(W x_i + b, y_i) + l2 / 2 ||W||_F^2,     W (K, D), b (K,)

with natural logarithms. The bias b is not penalised; its gauge is sum(b) = 0. With the residuals
``r_i = s_i (softmax(W x_i + b) - e_{y_i})`` and the direction ``V`` whose logits are ``u_i``

    gradient         grad_W = sum_i r_i x_i^T + l2 W,        grad_b = sum_i r_i
    Hessian product  sum_i s_i (diag(p_i) - p_i p_i^T) u_i x_i^T + l2 V.

Everything that belongs to samples is laid out (K, n): a row a class. Features are read by two
methods only, `SoftmaxRegression.logits` and `SoftmaxRegression.backproject`; all else is
arithmetic on cached logits, so an algorithm's cost is the number of those reads.
"""

from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from linprobe.core.linalg import backproject, class_logits
from linprobe.runtime.errors import LinprobeError

_STANDARDISE_ROWS = 256
_TRANSFORM_ROWS = 8192


@dataclass(frozen=True)
class Standardisation:
    """Affine map to the space of the problem: ``(x - mean) * scale``.

    Attributes:
        mean: (n_features,) float64, each value representable in the features' dtype.
        scale: one number for the layer, so that the mean of ``||x||^2`` becomes 1; 1 for
            constant features. It keeps the geometry of the layer and makes `l2` comparable
            between layers.
    """

    mean: Tensor
    scale: float

    @classmethod
    def fit_(cls, features: Tensor) -> "Standardisation":
        """Measure `features` (n_samples, n_features), finite, and standardise them in place."""
        blocks = features.split(_STANDARDISE_ROWS)
        total = torch.stack([block.sum(0).double() for block in blocks]).sum(0)
        mean = (total / len(features)).to(features.dtype)
        for block in blocks:
            block.sub_(mean)
        largest = max(float(block.abs().max()) for block in blocks)
        # Differences below this are rounding of the mean itself: the features are constant.
        if largest <= 4 * torch.finfo(features.dtype).eps * float(mean.abs().max()):
            features.zero_()
            return cls(mean.double(), 1.0)
        # A power of two, exact, brings squares of features of any scale into range.
        power = 2.0 ** -torch.tensor(largest, dtype=torch.float64).log2().round().item()
        square = 0.0
        for block in blocks:
            block.mul_(power)
            square += float(torch.linalg.vector_norm(block, dim=1).double().square().sum())
        unit = torch.tensor((square / len(features)) ** -0.5, dtype=features.dtype)
        for block in blocks:
            block.mul_(unit)
        return cls(mean.double(), power * float(unit))

    def rounding(self, features: Tensor) -> float:
        """Root mean square of the raw features' rounding over that of what varies in them.

        An estimate of the least there can be: half a unit in the last place of their mean.
        Rounding in earlier layers adds to it.

        Args:
            features: what `fit_` left, in the dtype of the raw features.

        Returns:
            Infinite for features that are constant, but for zeros; 0 for those.
        """
        size = float(self.mean.norm())
        if self.scale == 1.0 and not bool(features.any()):
            return float("inf") if size else 0.0
        return 0.5 * torch.finfo(features.dtype).eps * size * self.scale

    def to_raw(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Fold the map into a probe: the weight and bias returned, float64, take raw features."""
        raw = weight.double() * self.scale
        return raw, bias.double() - raw @ self.mean

    def pull_back(self, raw: Tensor, residual_sum: Tensor) -> Tensor:
        """Turn ``sum_i r_i x_i^T`` of raw features into that of standardised ones.

        Args:
            raw: (n_classes, n_features) float64.
            residual_sum: ``sum_i r_i``, (n_classes,) float64.
        """
        return (raw - torch.outer(residual_sum, self.mean)) * self.scale


@dataclass
class _Reads:
    count: float = 0.0


class SoftmaxRegression:
    """Softmax regression on standardised features; see the module for the formulas.

    Args:
        features: (n_samples, n_features) float32 or float64.
        labels: (n_samples,) int64 in 0..n_classes-1.
        num_classes: K.
        sample_weight: (n_samples,), non-negative; scaled here to sum to 1. Samples of weight
            zero have logits but no influence: this is how held-out samples ride along.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        num_classes: int,
        sample_weight: Tensor | None = None,
    ) -> None:
        self.features = features
        self.labels = labels
        self.num_classes = num_classes
        self.num_samples, self.num_features = features.shape
        if labels.shape != (self.num_samples,):
            raise LinprobeError(
                f"{self.num_samples} samples have labels of shape {tuple(labels.shape)}; "
                f"expected ({self.num_samples},): give one label for each sample"
            )
        weight = torch.ones(self.num_samples) if sample_weight is None else sample_weight
        weight = weight.to(features.device, torch.float64)
        self.sample_weight = (weight / weight.sum()).to(features.dtype)
        used = self.sample_weight.nonzero()
        self._end = int(used.max()) + 1 if len(used) else 0  # samples past it have weight zero
        self.targets = torch.zeros(
            num_classes, self.num_samples, dtype=features.dtype, device=features.device
        )
        self.targets.scatter_(0, labels[None], 1.0)
        self.class_mass = weighted_sum(self.targets, self.sample_weight)
        self._reads = _Reads()

    @property
    def num_reads(self) -> float:
        """How often all features were read so far; two reads are one pass."""
        return self._reads.count

    # Reads of the features

    def logits(self, weight: Tensor) -> Tensor:
        """Logits of a weight (n_classes, n_features), without bias, as `margins` has them.

        Returns:
            (n_classes, n_samples), less the logit of each sample's own label.
        """
        self._reads.count += 1
        return self.margins(class_logits(self.features, weight.to(self.features.dtype)))

    def backproject(self, residuals: Tensor) -> Tensor:
        """Sum of residual times feature over all samples: (n_classes, n_features), float64."""
        self._reads.count += self._end / self.num_samples
        return backproject(residuals[:, : self._end], self.features[: self._end]).double()

    def rows(self, index: Tensor) -> Tensor:
        """Features of the samples `index`: (len(index), n_features)."""
        return self.features[index]

    def squared_norms(self) -> Tensor:
        """Squared length of each sample's features: (n_samples,)."""
        norms: Tensor = torch.linalg.vector_norm(self.features, dim=1)
        return norms.square()

    def transformed(self, transform: Tensor, dtype: torch.dtype) -> "SoftmaxRegression":
        """The same samples in other coordinates, ``features @ transform``; counts as one read.

        Reads of the copy count as reads of this problem.

        Args:
            transform: (n_features, n_coordinates) float64.
            dtype: to multiply in; the result has that of the features.
        """
        self._reads.count += 1
        seen = copy(self)
        blocks = self.features.split(_TRANSFORM_ROWS)
        seen.features = self.features.new_empty(self.num_samples, transform.shape[1])
        for block, out in zip(blocks, seen.features.split(_TRANSFORM_ROWS), strict=True):
            out.copy_(block.to(dtype) @ transform.to(dtype))
        seen.num_features = transform.shape[1]
        return seen

    # Arithmetic on logits

    def margins(self, logits: Tensor) -> Tensor:
        """Subtract from logits (n_classes, n_samples) those of each sample's own label, in place.

        Nothing changes but the precision: the cross-entropy is then a sum of ``log(1 + ...)``
        without a linear term, and of a sample that is sure of its label nothing is left to cancel.
        """
        return logits.sub_(logits.gather(0, self.labels[None]))

    def bias_margins(self, bias: Tensor) -> Tensor:
        """What a bias (n_classes,) adds to `margins`: (n_classes, n_samples)."""
        low = bias.to(self.features.dtype)
        return low[:, None] - low[self.labels]

    def residuals(self, probabilities: Tensor) -> Tensor:
        """``s_i (p_i - e_{y_i})``: (n_classes, n_samples)."""
        return (probabilities - self.targets).mul_(self.sample_weight)


def weighted_sum(values: Tensor, sample_weight: Tensor) -> Tensor:
    """``sum_i s_i v_i`` over the last dimension, in float64.

    A float32 accumulator would round thousands of equal addends the same way.
    """
    return (values * sample_weight).sum(-1, dtype=torch.float64)


def bias_hessian(probabilities: Tensor, sample_weight: Tensor) -> Tensor:
    """``sum_i s_i (diag(p_i) - p_i p_i^T)``: (n_classes, n_classes) float64, singular along 1."""
    weighted = probabilities * sample_weight
    cross = (weighted @ probabilities.T).double()
    return torch.diag(cross.sum(1)) - cross
