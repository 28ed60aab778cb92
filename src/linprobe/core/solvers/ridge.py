"""Ridge regression, solved exactly: one eigendecomposition serves every penalty.

With ``X_c`` and ``T_c`` centred by the weighted means and ``S`` the diagonal of sample weights, the
best bias leaves ``W (X_c^T S X_c + l2 I) = T_c S X_c``. Where samples are fewer than features the
same weight is ``T_c S^(1/2) (S^(1/2) X_c X_c^T S^(1/2) + l2 I)^(-1) S^(1/2) X_c``, a system of n.
"""

import torch

from linprobe.core.losses import SquaredError
from linprobe.core.problem import LinearProblem
from linprobe.core.solvers.base import NewtonOptions, Point, Solution, Status
from linprobe.runtime.errors import LinprobeError


class Ridge:
    """Exact solution in float64, whatever the features' dtype; a `Solver` of squared errors.

    Args:
        problem: whose loss is `SquaredError`; all its rows are copied to float64.
        options: not needed; handed on as `learned`.

    Raises:
        LinprobeError: Another loss.
    """

    def __init__(self, problem: LinearProblem, options: NewtonOptions | None = None) -> None:
        if not isinstance(problem.loss, SquaredError):
            raise LinprobeError(
                f"the ridge solver is given {type(problem.loss).__name__}; expected SquaredError: "
                "use SubsampledNewton"
            )
        self.problem, self.learned = problem, options or NewtonOptions()
        everything = torch.arange(problem.num_samples, device=problem.device)
        rows, targets = problem.rows(everything).double(), problem.loss.targets.double()
        s = problem.sample_weight.double()
        self._share = s / s.sum()
        self._mean, self._level = self._share @ rows, targets @ self._share
        self._root = self._share.sqrt()
        self._rows = (rows - self._mean) * self._root[:, None]
        self._targets = (targets - self._level[:, None]) * self._root
        wide = problem.num_features > problem.num_samples
        gram = self._rows @ self._rows.T if wide else self._rows.T @ self._rows
        self._values, self._vectors = torch.linalg.eigh(gram)
        self._values.clamp_min_(0)
        # (K, rank): the right side in the coordinates of the eigenvectors.
        right = self._targets if wide else self._targets @ self._rows
        self._right, self._wide = right @ self._vectors, wide

    def solve(
        self,
        l2: float,
        *,
        tol: float,
        max_passes: float,
        starts: tuple[Point, ...] = (),
        near: float = 0.0,
    ) -> Solution:
        """Minimise P for this `l2`; the other arguments are not needed but for the status."""
        weight = (self._right / (self._values + l2)) @ self._vectors.T
        if self._wide:
            weight = weight @ self._rows
        bias = self._level - weight @ self._mean
        left = weight @ self._rows.T - self._targets  # residuals times the root of s_i
        gradient = left @ self._rows + l2 * weight
        gap = float(gradient.square().sum()) / (2 * l2)
        objective = float(left.square().sum() + l2 * weight.square().sum()) / 2
        status = Status.CONVERGED if gap <= tol else Status.PRECISION_LIMIT
        point = Point(weight, bias, self.problem.logits(weight))
        return Solution(point, l2, objective, gap, status, 1.0, 1)
