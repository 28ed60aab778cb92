"""The interface of solvers: points, outcomes and the one method that they share."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import torch
from torch import Tensor

from linprobe.core.problem import LinearProblem


class Status(StrEnum):
    """The ways in which a fit can end."""

    CONVERGED = "converged"
    """The duality gap is at most `tol`."""
    MAX_PASSES_REACHED = "max_passes_reached"
    """The pass budget ran out first: raise `max_passes` or `tol`."""
    NEAR = "near"
    """P is estimated to be near its minimum; the gap that is proven is larger than `tol`."""
    PRECISION_LIMIT = "precision_limit"
    """No further decrease could be computed in this arithmetic: raise `l2` or `tol`."""
    NONFINITE_FEATURES = "nonfinite_features"
    """The features hold NaN or infinity; there is no problem to solve."""
    DEGENERATE_LABELS = "degenerate_labels"
    """All training labels are of one class; there is nothing to separate."""
    EARLY_STOP = "early_stop"
    """Trained by minibatches until held-out cross-entropy stopped falling: raise `patience`."""
    EPOCH_LIMIT = "epoch_limit"
    """Trained by minibatches until the epochs ran out: raise `max_epochs`."""
    DIVERGED = "diverged"
    """Trained by minibatches until a weight was not finite: lower `learning_rate`."""
    FAILED = "failed"
    """An error ended the work on this layer; the record's `reason` says which."""


@dataclass(frozen=True)
class Point:
    """A weight together with what is known of it.

    Attributes:
        weight: (n_classes, n_features) float64.
        bias: (n_classes,) float64, summing to zero.
        logits: (n_classes, n_samples), ``weight @ features.T`` without bias, up to a number for
            each sample.
    """

    weight: Tensor
    bias: Tensor
    logits: Tensor

    @classmethod
    def zero(cls, problem: LinearProblem) -> "Point":
        """Return the point where weight, bias and logits are zero."""
        k, device = problem.num_classes, problem.device
        weight = torch.zeros(k, problem.num_features, dtype=torch.float64, device=device)
        logits = torch.zeros(k, problem.num_samples, dtype=problem.dtype, device=device)
        return cls(weight, weight.new_zeros(k), logits)


@dataclass(frozen=True)
class NewtonOptions:
    """Tuning of `SubsampledNewton`; no value changes the optimum, only the way to it.

    Attributes:
        sample_rows: rows of the sampled Hessian to begin with, doubled when they are too few;
            None: as many as the model asks for.
        factorise: whether to factorise small Hessians from the start, instead of when conjugate
            gradients don't suffice.
        most_rows: up to which the sample grows; None: as many as there is room for.
        pair_rows: rows drawn for each pair of classes and feature of a factorised Hessian.
        seed: of the row samples.
    """

    sample_rows: int | None = None
    factorise: bool = False
    most_rows: int | None = None
    pair_rows: int = 12
    seed: int = 0


@dataclass(frozen=True)
class Solution:
    """Outcome of one solve.

    Attributes:
        point: the last iterate.
        l2: the penalty that was solved for.
        objective: P at the point (nats), in the solver's arithmetic.
        duality_gap: the solver's own estimate of the gap (nats); `certify` has the last word.
        status: `CONVERGED`, `NEAR`, `MAX_PASSES_REACHED` or `PRECISION_LIMIT`.
        num_passes: passes over the features that this solve took.
        num_steps: outer steps of the algorithm.
    """

    point: Point
    l2: float
    objective: float
    duality_gap: float
    status: Status
    num_passes: float
    num_steps: int


class Solver(Protocol):
    """A solver bound to one problem; what it learns at one `l2` may help at the next."""

    problem: LinearProblem

    @property
    def learned(self) -> NewtonOptions:
        """Options that a solver of a like problem may begin with."""
        ...

    def solve(
        self,
        l2: float,
        *,
        tol: float,
        max_passes: float,
        starts: tuple[Point, ...] = (),
        near: float = 0.0,
    ) -> Solution:
        """Minimise P for this `l2`, starting from the best point in the span of `starts`.

        Args:
            l2: the penalty.
            tol: duality gap (nats) to be reached.
            max_passes: passes over the features.
            starts: solutions of like problems.
            near: an estimated distance of P from its minimum (nats) that suffices, whatever gap
                is proven. A proven gap takes the curvature for `l2` in all directions: at small
                penalties it can be a million times the distance.
        """
        ...
