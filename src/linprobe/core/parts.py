"""Samples a part at a time, so that arithmetic on (n_classes, n_samples) stays in cache.

Whole arrays would be read from memory and written back at each of a dozen operations; those of many
classes are also new pages of memory each time, which cost more than the arithmetic.
"""

from dataclasses import dataclass

from torch import Tensor

from linprobe.core.losses import Loss

_NUMBERS = 2**17  # of logits in a part
_LEAST_SAMPLES = 512


@dataclass(frozen=True)
class Part:
    """Some of a problem's samples.

    Attributes:
        rows: which.
        loss: with their targets.
        sample_weight: theirs, (len(rows),).
    """

    rows: slice
    loss: Loss
    sample_weight: Tensor

    def evaluate(self, margins: Tensor) -> Tensor:
        """Sum the weighted losses, a float64 scalar; predictions overwrite the margins."""
        values, predictions = self.loss.evaluate(margins)
        if predictions is not margins:
            margins.copy_(predictions)
        return self.sample_weight.double() @ values.double()

    def residuals(self, predictions: Tensor) -> Tensor:
        """Compute the weighted residuals, a new tensor."""
        return self.loss.residuals(predictions).mul_(self.sample_weight)

    def curved(self, predictions: Tensor, logits: Tensor) -> Tensor:
        """Multiply a direction's logits by P's Hessian over logits, a new tensor."""
        return self.loss.centred(predictions, logits).mul_(self.weighted_spread(predictions))

    def weighted_spread(self, predictions: Tensor) -> Tensor:
        """Return the diagonal of the Hessian over centred logits, a new tensor."""
        return self.loss.spread(predictions) * self.sample_weight


def split(loss: Loss, sample_weight: Tensor) -> tuple[Part, ...]:
    """Split samples into parts; on a device other than the CPU into one."""
    step = max(_LEAST_SAMPLES, _NUMBERS // max(1, loss.num_outputs))
    if sample_weight.device.type != "cpu":
        step = max(1, loss.num_samples)
    starts = range(0, max(1, loss.num_samples), step)  # one part at the least, though it be empty
    rows = [slice(start, start + step) for start in starts]
    return tuple(Part(some, loss.part(some), sample_weight[some]) for some in rows)
