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

from linprobe.core.features import FeatureMatrix, as_features
from linprobe.runtime.errors import LinprobeError


@dataclass
class _Reads:
    count: float = 0.0


class SoftmaxRegression:
    """Softmax regression on standardised features; see the module for the formulas.

    Args:
        features: (n_samples, n_features) float32 or float64, standardised; a tensor or any
            `FeatureMatrix`, which is only read.
        labels: (n_samples,) int64 in 0..n_classes-1.
        num_classes: K.
        sample_weight: (n_samples,), non-negative; scaled here to sum to 1. Samples of weight
            zero have logits but no influence: this is how held-out samples ride along.
    """

    def __init__(
        self,
        features: Tensor | FeatureMatrix,
        labels: Tensor,
        num_classes: int,
        sample_weight: Tensor | None = None,
    ) -> None:
        self.features = features = as_features(features)
        self.labels = labels
        self.num_classes = num_classes
        self.num_samples = features.num_rows
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
        self.class_mass = torch.bincount(
            labels, weights=self.sample_weight.double(), minlength=num_classes
        )
        self._reads = _Reads()

    @property
    def num_features(self) -> int:
        """Number of columns."""
        return self.features.num_features

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the features, of logits and of all that belongs to samples."""
        return self.features.dtype

    @property
    def device(self) -> torch.device:
        """Where the features are."""
        return self.features.device

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
        return self.margins(self.features.logits(weight))

    def backproject(self, residuals: Tensor) -> Tensor:
        """Sum of residual times feature over all samples: (n_classes, n_features), float64."""
        self._reads.count += self._end / self.num_samples
        return self.features.rows(0, self._end).backproject(residuals[:, : self._end])

    def rows(self, index: Tensor) -> Tensor:
        """Features of the samples `index`: (len(index), n_features)."""
        return self.features.take(index)

    def squared_norms(self) -> Tensor:
        """Squared length of each sample's features: (n_samples,)."""
        return self.features.squared_norms()

    def transformed(self, transform: Tensor, dtype: torch.dtype) -> "SoftmaxRegression":
        """The same samples in other coordinates, ``features @ transform``; counts as one read.

        Reads of the copy count as reads of this problem.

        Args:
            transform: (n_features, n_coordinates) float64.
            dtype: to multiply in; the result has that of the features.
        """
        self._reads.count += 1
        seen = copy(self)
        seen.features = self.features.transformed(transform, dtype)
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
        low = bias.to(self.dtype)
        return low[:, None] - low[self.labels]

    def residuals(self, probabilities: Tensor) -> Tensor:
        """``s_i (p_i - e_{y_i})``: (n_classes, n_samples)."""
        own = self.labels[None]
        at_label = probabilities.gather(0, own) - 1
        return probabilities.scatter(0, own, at_label).mul_(self.sample_weight)


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
