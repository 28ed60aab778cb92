"""The interface between a solver and its model of the Hessian."""

from typing import Protocol

from torch import Tensor

from linprobe.core.solvers.base import NewtonOptions
from linprobe.core.solvers.subspace import Direction

WEAK_PROGRESS = 0.15
"""Ratio of successive gaps above which better directions pay where they are cheap."""


class NewtonModel(Protocol):
    """A source of Newton directions."""

    def begin(self, predictions: Tensor, l2: float) -> None:
        """Prepare for a new `l2`, from the predictions (n_classes, n_samples) at its start."""
        ...

    def backproject(self, residuals: Tensor) -> Tensor:
        """Sum residual times feature, as `LinearProblem.backproject`; reads all features once."""
        ...

    def direction(
        self, predictions: Tensor, gradient: Tensor, *, with_logits: bool = True
    ) -> Direction:
        """About minus the inverse Hessian times the gradient; its logits read all features once.

        Args:
            predictions: (n_classes, n_samples) where the gradient was taken.
            gradient: of P over the weight at the best bias, (n_classes, n_features) float64.
            with_logits: otherwise those of the direction are (n_classes, 0), and nothing is read.
        """
        ...

    def improve(self) -> None:
        """Give better directions from now on, at the price of time; called on weak progress."""
        ...

    def is_weak(self, ratio: float) -> bool:
        """Tell whether a step of this ratio of successive gaps calls for `improve`."""
        ...

    @property
    def learned(self) -> NewtonOptions:
        """Options that a model of a like problem may begin with."""
        ...
