"""The convex problem that a probe solves: THE contract between data, solvers and certificate.

For features ``x_i`` in R^D, a loss of K logits with targets (softmax: labels ``y_i`` in {0..K-1})
and sample weights ``s_i >= 0`` that sum to one (1/n by default)

    P(W, b) = sum_i s_i loss_i(W x_i + b) + l2 / 2 ||W||_F^2,     W (K, D), b (K,)

The bias b is not penalised; for softmax its gauge is sum(b) = 0. For softmax, in natural
logarithms, with the residuals ``r_i = s_i (softmax(W x_i + b) - e_{y_i})`` and the direction ``V``
whose logits are ``u_i``

    gradient         grad_W = sum_i r_i x_i^T + l2 W,        grad_b = sum_i r_i
    Hessian product  sum_i s_i (diag(p_i) - p_i p_i^T) u_i x_i^T + l2 V.

Everything that belongs to samples is laid out (K, n): a row a class. Features are read by two
methods only, `LinearProblem.logits` and `LinearProblem.backproject`; all else is arithmetic on
cached logits, so an algorithm's cost is the number of those reads.
"""

import weakref
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from linprobe.core.bias_system import BiasSystem, bias_system
from linprobe.core.features import FeatureMatrix, as_features
from linprobe.core.linalg import float64_sum
from linprobe.core.losses import Loss, Softmax
from linprobe.core.parts import split
from linprobe.core.sums import LocalSums, Sums
from linprobe.runtime.errors import LinprobeError


@dataclass
class _Reads:
    count: float = 0.0


@dataclass
class _KnownBias:
    """What is known of the bias at some predictions."""

    predictions: weakref.ref[Tensor]
    system: BiasSystem
    step: tuple[Tensor, Tensor] | None = None


class LinearProblem:
    """A penalised linear model of standardised features; see the module for the formulas.

    Args:
        features: (n_samples, n_features) float32 or float64, standardised; a tensor or any
            `FeatureMatrix`, which is only read.
        loss: of K logits, with the targets of the same samples.
        sample_weight: (n_samples,), non-negative; scaled here to sum to 1. Samples of weight
            zero have logits but no influence: this is how held-out samples ride along.
        sums: completes sums over samples; default: all rows are here.

    Attributes:
        num_samples: rows that are here.
        total_samples: rows of all processes.
        total_used: those of them whose weight is not zero.
    """

    def __init__(
        self,
        features: Tensor | FeatureMatrix,
        loss: Loss,
        sample_weight: Tensor | None = None,
        sums: Sums | None = None,
    ) -> None:
        self.features: FeatureMatrix = as_features(features)
        self.loss, self.sums = loss, sums or LocalSums()
        self.num_classes, self.num_samples = loss.num_outputs, self.features.num_rows
        weight = torch.ones(self.num_samples) if sample_weight is None else sample_weight
        weight = weight.to(self.device, torch.float64)
        self.sample_weight = (weight / self.sums.total(weight.sum())).to(self.dtype)
        used = self.sample_weight.nonzero()
        self._end = int(used.max()) + 1 if len(used) else 0  # samples past it have weight zero
        counts = self.sums.total(torch.tensor([self.num_samples, self._end, len(used)]))
        self.total_samples, ends, self.total_used = counts.tolist()
        self._share_read = ends / max(1, self.total_samples)
        self.parts = split(loss, self.sample_weight)
        """The samples, some at a time."""
        self.target_mass = self.sums.total(loss.target_mass(self.sample_weight))
        self._reads = _Reads()
        self._known_bias: _KnownBias | None = None

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
        """Count the reads of all features so far; two reads are one pass."""
        return self._reads.count

    # Reads of the features

    def logits(self, weight: Tensor) -> Tensor:
        """Compute the logits of a weight (n_classes, n_features), without bias, as `margins`.

        Returns:
            (n_classes, n_samples); for softmax less the logit of each sample's own label.
        """
        self._reads.count += 1
        return self.margins(self.features.logits(weight))

    def backproject(self, residuals: Tensor) -> Tensor:
        """Sum residual times feature over all samples: (n_classes, n_features), float64."""
        self._reads.count += self._share_read
        used = self.features.rows(0, self._end)
        return self.sums.total(used.backproject(residuals[:, : self._end]))

    def rows(self, index: Tensor) -> Tensor:
        """Take the features of samples that are here, of an `index`: (len(index), n_features)."""
        return self.features.take(index)

    def squared_norms(self) -> Tensor:
        """Compute the squared length of each sample's features: (n_samples,)."""
        return self.features.squared_norms()

    def transformed(self, transform: Tensor, dtype: torch.dtype) -> "LinearProblem":
        """View the same samples in other coordinates, ``features @ transform``; one read.

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
        """Turn logits (n_classes, n_samples) into margins, in place; see `Loss.margins`."""
        return self.loss.margins(logits)

    def shifted(self, margins: Tensor, bias: Tensor) -> Tensor:
        """Add a bias (n_classes,) to `margins`: a new tensor."""
        out, bias = torch.empty_like(margins), bias.to(self.dtype)
        for part in self.parts:
            here = out[:, part.rows]
            torch.add(margins[:, part.rows], part.loss.bias_margins(bias), out=here)
        return out

    def evaluate(self, margins: Tensor) -> tuple[float, Tensor]:
        """Compute the data term of P and the predictions, which overwrite the margins."""
        value = sum(part.evaluate(margins[:, part.rows]) for part in self.parts)
        return float(self.sums.total(torch.as_tensor(value))), margins

    def residuals(self, predictions: Tensor) -> Tensor:
        """Compute the weighted residuals, for softmax ``s_i (p_i - e_{y_i})``: (n_classes, n)."""
        out = torch.empty_like(predictions)
        for part in self.parts:
            out[:, part.rows] = part.residuals(predictions[:, part.rows])
        return out

    def gauged(self, values: Tensor) -> Tensor:
        """Make a bias (n_classes,) or weight sum to zero, where equal ones change no prediction."""
        return values - values.mean(0) if self.loss.shift_invariant else values

    def mean(self, values: Tensor) -> Tensor:
        """Sum ``s_i v_i`` over the last dimension, in float64."""
        sums = [weighted_sum(values[..., part.rows], part.sample_weight) for part in self.parts]
        return self.sums.total(torch.stack(sums).sum(0))

    def curved(self, predictions: Tensor, logits: Tensor) -> Tensor:
        """Multiply a direction's logits by P's Hessian over logits: a new (n_classes, n)."""
        out = torch.empty_like(predictions)
        for part in self.parts:
            out[:, part.rows] = part.curved(predictions[:, part.rows], logits[:, part.rows])
        return out

    def bias_system(self, predictions: Tensor) -> BiasSystem:
        """Make the equations of the bias at these predictions; those of the same ones are kept."""
        return self._bias_at(predictions).system

    def bias_gradient(self, predictions: Tensor) -> Tensor:
        """Compute P's gradient over the bias at these predictions: (n_classes,) float64."""
        return self.mean(predictions) - self.target_mass

    def bias_step(self, predictions: Tensor) -> tuple[Tensor, Tensor]:
        """Compute `bias_gradient` and what `bias_system` solves for it.

        Those of the same predictions are kept, as `bias_system` keeps the equations.
        """
        known = self._bias_at(predictions)
        if known.step is None:
            gradient = self.bias_gradient(predictions)
            known.step = gradient, known.system.solve(gradient[None])[0]
        return known.step

    def _bias_at(self, predictions: Tensor) -> _KnownBias:
        known = self._known_bias
        if known is None or known.predictions() is not predictions:
            system = bias_system(self.loss, self.parts, predictions, self.sample_weight, self.sums)
            known = self._known_bias = _KnownBias(weakref.ref(predictions), system)
        return known


class SoftmaxRegression(LinearProblem):
    """The problem of softmax cross-entropy.

    Args:
        features: see `LinearProblem`.
        labels: (n_samples,) int64 in 0..n_classes-1.
        num_classes: K.
        sample_weight: see `LinearProblem`.
        sums: see `LinearProblem`.

    Raises:
        LinprobeError: Not one label for each sample.
    """

    def __init__(
        self,
        features: Tensor | FeatureMatrix,
        labels: Tensor,
        num_classes: int,
        sample_weight: Tensor | None = None,
        sums: Sums | None = None,
    ) -> None:
        features = as_features(features)
        if labels.shape != (features.num_rows,):
            raise LinprobeError(
                f"{features.num_rows} samples have labels of shape {tuple(labels.shape)}; "
                f"expected ({features.num_rows},): give one label for each sample"
            )
        self.labels = labels
        super().__init__(features, Softmax(labels, num_classes), sample_weight, sums)


def weighted_sum(values: Tensor, sample_weight: Tensor) -> Tensor:
    """Sum ``s_i v_i`` over the last dimension, in float64."""
    return float64_sum(values * sample_weight)
