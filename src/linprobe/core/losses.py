"""The seam between a loss and everything that minimises it.

A loss knows its targets, and of logits (K, n) what solvers need: values, predictions, residuals
and curvature. Its Hessian over the logits of one sample has the form
``C^T diag(spread) C`` with the map C of `centred`: for softmax the spread is p and C subtracts the
mean under p; for squared error both are identities, and for two classes as one logit C is.

Solvers hold `margins`: logits less a number for each sample that changes no prediction. What the
certificate needs stands in `linprobe.core.duals`, in arithmetic of its own.
"""

from typing import Protocol

import torch
from torch import Tensor

# Below the rounding of a float64 sum of probabilities; keeps p, p^2 and s p^2 above the denormal
# float32 numbers, which processors multiply a hundred times more slowly.
LOWEST_LOGIT = -35.0
_SHORT_ROWS = 2000  # of a view: exponentials are called for row by row, and copying costs less


class Loss(Protocol):
    """A convex loss of K logits for each of n samples, targets included.

    Attributes:
        num_outputs: K.
        shift_invariant: whether one number added to all logits of a sample changes nothing, so
            that biases have a gauge.
        couples_in_pairs: whether the Hessian over logits is the sum over pairs k < j of
            ``p_k p_j (e_k - e_j)(e_k - e_j)^T``.
    """

    num_outputs: int
    shift_invariant: bool
    couples_in_pairs: bool

    @property
    def num_samples(self) -> int:
        """Number of samples, n."""
        ...

    def part(self, rows: slice) -> "Loss":
        """View the loss of some samples."""
        ...

    def target_mass(self, sample_weight: Tensor) -> Tensor:
        """Sum the targets: ``sum_i s_i t_i``, (K,) float64."""
        ...

    def constant_bias(self, target_mass: Tensor) -> Tensor:
        """Guess the best bias (K,) of weight zero, of `target_mass`."""
        ...

    def margins(self, logits: Tensor) -> Tensor:
        """Subtract from logits (K, n), in place, what changes no prediction and costs precision."""
        ...

    def bias_margins(self, bias: Tensor) -> Tensor:
        """Return what a bias (K,) adds to `margins`, a new tensor (K, n)."""
        ...

    def evaluate(self, margins: Tensor) -> tuple[Tensor, Tensor]:
        """Compute values (n,) and predictions (K, n); the margins are overwritten."""
        ...

    def residuals(self, predictions: Tensor) -> Tensor:
        """Compute the derivative of each sample's loss over its logits, a new tensor (K, n)."""
        ...

    def along(self, predictions: Tensor, margins: Tensor) -> tuple[Tensor, Tensor]:
        """Return the slope (n,) of each loss along a direction of margins, and it `centred`."""
        ...

    def centred(self, predictions: Tensor, logits: Tensor) -> Tensor:
        """Map a direction of logits (K, m), of all samples or some, by C: a new tensor (K, m).

        A direction that is the same for all of them may be given as (K, 1).
        """
        ...

    def spread(self, predictions: Tensor) -> Tensor:
        """Return the diagonal between C^T and C: (K, m)."""
        ...

    def moved(self, predictions: Tensor, bias: Tensor) -> Tensor:
        """Move predictions (K, n) by a change of the bias (K,), to first order; a new tensor."""
        ...

    def importance(self, predictions: Tensor) -> Tensor:
        """Compute the trace of each sample's Hessian over its logits: (m,)."""
        ...

    def bias_hessian(self, predictions: Tensor, weighted: Tensor) -> Tensor:
        """Sum the Hessians over the logits: (K, K) float64.

        Args:
            predictions: (K, m).
            weighted: `spread` times the weight of each sample, (K, m).
        """
        ...


class Softmax:
    """Cross-entropy of ``softmax(z)`` in nats; a `Loss`.

    Predictions are probabilities. Margins are logits less that of the sample's own label: the
    cross-entropy is then a sum of ``log(1 + ...)`` without a linear term, and of a sample that is
    sure of its label nothing is left to cancel.

    Args:
        labels: (n,) int64 in 0..num_classes-1.
        num_classes: K.
    """

    shift_invariant = True
    couples_in_pairs = True

    def __init__(self, labels: Tensor, num_classes: int) -> None:
        self.labels, self.num_outputs = labels, num_classes

    @property
    def num_samples(self) -> int:
        """See `Loss`."""
        return len(self.labels)

    def part(self, rows: slice) -> "Softmax":
        """See `Loss`."""
        return Softmax(self.labels[rows], self.num_outputs)

    def target_mass(self, sample_weight: Tensor) -> Tensor:
        """See `Loss`."""
        mass = sample_weight.new_zeros(self.num_outputs, dtype=torch.float64)
        return mass.index_add_(0, self.labels, sample_weight.double())

    def constant_bias(self, target_mass: Tensor) -> Tensor:
        """See `Loss`; it is the best: each class is predicted as often as it occurs."""
        bias = target_mass.log().clamp_min(LOWEST_LOGIT)
        return bias - bias.mean()

    def margins(self, logits: Tensor) -> Tensor:
        """See `Loss`."""
        return logits.sub_(logits.gather(0, self.labels[None]))

    def bias_margins(self, bias: Tensor) -> Tensor:
        """See `Loss`."""
        return bias[:, None] - bias[self.labels]

    def evaluate(self, margins: Tensor) -> tuple[Tensor, Tensor]:
        """See `Loss`; the values are log-sum-exps."""
        if margins.shape[1] < _SHORT_ROWS:
            margins = margins.contiguous()
        top = margins.amax(0)
        probabilities = margins.sub_(top).clamp_min_(LOWEST_LOGIT).exp_()
        total = probabilities.sum(0)
        probabilities.div_(total)
        return total.log_().add_(top), probabilities

    def residuals(self, predictions: Tensor) -> Tensor:
        """See `Loss`: ``p - e_y``."""
        less = predictions.new_full((1, 1), -1).expand(1, self.num_samples)
        return predictions.scatter_add(0, self.labels[None], less)

    def along(self, predictions: Tensor, margins: Tensor) -> tuple[Tensor, Tensor]:
        """See `Loss`; the margin of the label is zero."""
        mean = (predictions * margins).sum(0)
        return mean, margins - mean

    def centred(self, predictions: Tensor, logits: Tensor) -> Tensor:
        """See `Loss`."""
        return logits - (predictions * logits).sum(0)

    def spread(self, predictions: Tensor) -> Tensor:
        """See `Loss`."""
        return predictions

    def moved(self, predictions: Tensor, bias: Tensor) -> Tensor:
        """See `Loss`: ``p_k (1 + d_k - sum_j p_j d_j)``."""
        factor = bias[:, None] - bias @ predictions
        return torch.addcmul(predictions, predictions, factor)

    def importance(self, predictions: Tensor) -> Tensor:
        """See `Loss`: the Gini impurity, zero where the probe is sure."""
        return (1 - predictions.square().sum(0)).clamp_min(0)

    def bias_hessian(self, predictions: Tensor, weighted: Tensor) -> Tensor:
        """See `Loss`: ``sum_i s_i (diag(p_i) - p_i p_i^T)``, singular along 1."""
        cross = (weighted @ predictions.T).double()
        return torch.diag(cross.sum(1)) - cross


class Contrast:
    """Cross-entropy of two classes as a function of one logit, z_1 - z_0, in nats; a `Loss`.

    Predictions are the residuals themselves, ``p_1 - y``: a probability near one could not tell how
    far it is from one.

    Args:
        labels: (n,) int64, 0 or 1.
    """

    num_outputs = 1
    shift_invariant = False
    couples_in_pairs = False

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels

    @property
    def num_samples(self) -> int:
        """See `Loss`."""
        return len(self.labels)

    def part(self, rows: slice) -> "Contrast":
        """See `Loss`."""
        return Contrast(self.labels[rows])

    def target_mass(self, sample_weight: Tensor) -> Tensor:
        """See `Loss`; the targets are in the predictions."""
        return sample_weight.new_zeros(1, dtype=torch.float64)

    def constant_bias(self, target_mass: Tensor) -> Tensor:
        """See `Loss`: zero."""
        return torch.zeros_like(target_mass)

    def margins(self, logits: Tensor) -> Tensor:
        """See `Loss`."""
        return logits

    def bias_margins(self, bias: Tensor) -> Tensor:
        """See `Loss`."""
        return bias[:, None].repeat(1, self.num_samples)

    def evaluate(self, margins: Tensor) -> tuple[Tensor, Tensor]:
        """See `Loss`."""
        sign = 1 - 2 * self.labels.to(margins.dtype)
        against = margins.mul_(sign)  # the logit of the other class less that of the label
        wrong = against.clamp_min(LOWEST_LOGIT).sigmoid_()
        return torch.nn.functional.softplus(against)[0], wrong.mul_(sign)

    def residuals(self, predictions: Tensor) -> Tensor:
        """See `Loss`."""
        return predictions.clone()

    def along(self, predictions: Tensor, margins: Tensor) -> tuple[Tensor, Tensor]:
        """See `Loss`."""
        return (predictions * margins)[0], margins.clone()

    def centred(self, predictions: Tensor, logits: Tensor) -> Tensor:
        """See `Loss`."""
        return logits.expand_as(predictions).clone()

    def spread(self, predictions: Tensor) -> Tensor:
        """See `Loss`: ``p_1 p_0``."""
        wrong = predictions.abs()
        return wrong.mul(1 - wrong)

    def moved(self, predictions: Tensor, bias: Tensor) -> Tensor:
        """See `Loss`."""
        return torch.addcmul(predictions, self.spread(predictions), bias[:, None])

    def importance(self, predictions: Tensor) -> Tensor:
        """See `Loss`."""
        return self.spread(predictions)[0]

    def bias_hessian(self, predictions: Tensor, weighted: Tensor) -> Tensor:
        """See `Loss`."""
        return weighted.sum(1, dtype=torch.float64)[:, None]


class SquaredError:
    """Half the squared distance ``||z - t||^2 / 2`` of the logits from real targets; a `Loss`.

    Predictions are the logits themselves, and so are margins.

    Args:
        targets: (K, n) in the dtype of the features.
    """

    shift_invariant = False
    couples_in_pairs = False

    def __init__(self, targets: Tensor) -> None:
        self.targets, self.num_outputs = targets, len(targets)

    @property
    def num_samples(self) -> int:
        """See `Loss`."""
        return self.targets.shape[1]

    def part(self, rows: slice) -> "SquaredError":
        """See `Loss`."""
        return SquaredError(self.targets[:, rows])

    def target_mass(self, sample_weight: Tensor) -> Tensor:
        """See `Loss`."""
        return (self.targets * sample_weight).sum(1, dtype=torch.float64)

    def constant_bias(self, target_mass: Tensor) -> Tensor:
        """See `Loss`; it is the best."""
        return target_mass.clone()

    def margins(self, logits: Tensor) -> Tensor:
        """See `Loss`."""
        return logits

    def bias_margins(self, bias: Tensor) -> Tensor:
        """See `Loss`."""
        return bias[:, None].repeat(1, self.num_samples)

    def evaluate(self, margins: Tensor) -> tuple[Tensor, Tensor]:
        """See `Loss`."""
        return (margins - self.targets).square().sum(0) / 2, margins

    def residuals(self, predictions: Tensor) -> Tensor:
        """See `Loss`: ``z - t``."""
        return predictions - self.targets

    def along(self, predictions: Tensor, margins: Tensor) -> tuple[Tensor, Tensor]:
        """See `Loss`."""
        return (self.residuals(predictions) * margins).sum(0), margins.clone()

    def centred(self, predictions: Tensor, logits: Tensor) -> Tensor:
        """See `Loss`."""
        return logits.expand_as(predictions).clone()

    def spread(self, predictions: Tensor) -> Tensor:
        """See `Loss`."""
        return torch.ones_like(predictions)

    def moved(self, predictions: Tensor, bias: Tensor) -> Tensor:
        """See `Loss`; exact."""
        return predictions + bias[:, None]

    def importance(self, predictions: Tensor) -> Tensor:
        """See `Loss`: the same for all samples."""
        return torch.full_like(predictions[0], len(predictions))

    def bias_hessian(self, predictions: Tensor, weighted: Tensor) -> Tensor:
        """See `Loss`: a multiple of the identity."""
        return torch.diag(weighted.sum(1, dtype=torch.float64))
