"""Newton directions of one logit by its whole Hessian: for few rows of some thousand features.

A Hessian of one logit has as many rows as there are features. Where rows are few it takes less time
to form and to factorise than a sketch of it, and its directions are exact.
"""

import torch
from torch import Tensor

from linprobe.core.linalg import cholesky
from linprobe.core.problem import LinearProblem
from linprobe.core.solvers.base import NewtonOptions
from linprobe.core.solvers.subspace import Direction
from linprobe.core.sums import least

_MAX_FEATURES = 2048
_MAX_PRODUCTS = 2e10  # numbers multiplied: some tenths of a second
_ROWS = 1024  # at a time, in float64
_BYTES = 24  # for each number of the Hessian: itself, its factor and a sum on the way


class DirectModel:
    """A `NewtonModel` of all rows, whose bias is eliminated; it is made for a problem of one logit.

    The Hessian is that at the predictions of the first direction, until `begin` is called again.
    """

    def __init__(
        self, problem: LinearProblem, options: NewtonOptions, generator: torch.Generator
    ) -> None:
        self._problem, self._options = problem, options
        self._l2 = 1.0
        self._inverse: tuple[Tensor, Tensor] | None = None  # Cholesky factor, and scale of columns

    @staticmethod
    def suits(problem: LinearProblem) -> bool:
        """Tell whether the model of this problem is small."""
        width, room = problem.num_features, least(problem.sums, problem.features.room)
        return (
            problem.num_classes == 1
            and width <= _MAX_FEATURES
            and problem.total_samples * width**2 <= _MAX_PRODUCTS
            and _BYTES * width**2 <= room
        )

    def begin(self, predictions: Tensor, l2: float) -> None:
        """See `NewtonModel`."""
        self._l2, self._inverse = l2, None

    def backproject(self, residuals: Tensor) -> Tensor:
        """See `NewtonModel`."""
        return self._problem.backproject(residuals)

    def direction(
        self, predictions: Tensor, gradient: Tensor, *, with_logits: bool = True
    ) -> Direction:
        """See `NewtonModel`."""
        if self._inverse is None:
            self._inverse = self._factorised(predictions)
        factor, scale = self._inverse
        solved = torch.cholesky_solve((gradient[0].double() * scale)[:, None], factor)[:, 0]
        weight = self._problem.sums.agreed(-(solved * scale)[None])
        logits = self._problem.logits(weight) if with_logits else weight[:, :0]
        return Direction(weight, logits)

    def is_weak(self, ratio: float) -> bool:
        """See `NewtonModel`."""
        return False

    def improve(self) -> None:
        """See `NewtonModel`: no direction is better."""

    @property
    def learned(self) -> NewtonOptions:
        """See `NewtonModel`."""
        return self._options

    def _factorised(self, predictions: Tensor) -> tuple[Tensor, Tensor]:
        problem = self._problem
        curvature = (problem.loss.spread(predictions)[0] * problem.sample_weight).double()
        width = problem.num_features
        # Rows are centred by their weighted mean, which is what eliminating the bias comes to.
        first, gram = curvature.new_zeros(width), curvature.new_zeros(width, width)
        for where, rows in problem.features.parts(_ROWS):
            first += curvature[where] @ rows.double()
        packed = problem.sums.total(torch.cat([first, curvature.sum()[None]]))
        mean = packed[:-1] / packed[-1].clamp_min(torch.finfo(packed.dtype).tiny)
        for where, rows in problem.features.parts(_ROWS):
            root = curvature[where].sqrt()[:, None]
            centred = (rows.double() - mean).mul_(root)
            gram.addmm_(centred.T, centred)
        gram = problem.sums.total(gram)
        gram.diagonal().add_(self._l2)
        scale = gram.diagonal().rsqrt()
        return cholesky(gram.mul_(scale).mul_(scale[:, None])), scale
