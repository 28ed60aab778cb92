"""The whole Hessian, factorised: for few features and classes.

Each sample couples pairs of classes: the Hessian is the sum over pairs k < j of
``(e_k - e_j)(e_k - e_j)^T (x) sum_i s_i p_ik p_ij z_i z_i^T``. Rows are drawn for each pair on its
own, so that a pair that hardly any sample is unsure of keeps its curvature: the approximation is
as good relative to the smallest eigenvalues as to the largest. Rows drawn for all pairs together
miss such couplings altogether, and small penalties don't hide that. Products are in float64 for the
same reason: float32 features have directions of 1e-11 of the largest eigenvalue.
"""

from itertools import combinations

import torch
from torch import Tensor

from linprobe.core.linalg import cholesky
from linprobe.core.problem import LinearProblem
from linprobe.core.solvers.sampled_hessian import draw_rows


class FactorisedHessian:
    """Inverse Hessian of P at its best bias.

    Args:
        problem: features z_i (n_samples, n_features), sample weights s_i, and a loss that couples
            classes in pairs.
        probabilities: (n_classes, n_samples).
        leverage: (n_samples,), what each row is worth within any pair.
        penalty: second derivative of the penalty along each feature, (n_features,).
        num_rows: drawn for each pair.
        generator: of the draws.
    """

    def __init__(
        self,
        problem: LinearProblem,
        probabilities: Tensor,
        leverage: Tensor,
        penalty: Tensor,
        num_rows: int,
        generator: torch.Generator,
    ) -> None:
        num_classes, columns = problem.num_classes, problem.num_features + 1
        hessian = _blocks(problem, probabilities, leverage, num_rows, generator)
        hessian.view(num_classes * columns, -1).diagonal().view(num_classes, columns)[:, :-1] += (
            penalty
        )
        # Equal biases change nothing: without curvature of its own, that direction is left at zero.
        bias = torch.arange(num_classes, device=hessian.device) * columns + columns - 1
        hessian[bias[:, None], bias] += 1 / num_classes
        self._scale = hessian.diagonal().rsqrt()
        hessian.mul_(self._scale).mul_(self._scale[:, None])
        self._factor = cholesky(hessian)

    def __call__(self, right: Tensor) -> Tensor:
        """Apply it to a gradient over the weight (n_classes, n_features); that of the bias is 0."""
        num_classes, _ = right.shape
        gradient = torch.cat([right.double(), right.new_zeros(num_classes, 1).double()], dim=1)
        scaled = (gradient.view(-1) * self._scale)[:, None]
        solution = torch.cholesky_solve(scaled, self._factor)[:, 0] * self._scale
        return solution.view(num_classes, -1)[:, :-1].to(right.dtype)


def _blocks(
    problem: LinearProblem,
    probabilities: Tensor,
    leverage: Tensor,
    num_rows: int,
    generator: torch.Generator,
) -> Tensor:
    """The Hessian over weight and bias, (n_classes (n_features + 1),) squared, float64."""
    num_classes, columns = problem.num_classes, problem.num_features + 1
    shape = (num_classes, columns, num_classes, columns)
    out = torch.zeros(shape, dtype=torch.float64, device=leverage.device)
    for k, j in combinations(range(num_classes), 2):
        # p_k p_j, without a 1 - p that would be all rounding where the probe is sure.
        coupling = probabilities[k] * probabilities[j]
        importance = coupling * problem.sample_weight * leverage
        sample = draw_rows(problem, importance, num_rows, generator)
        root = (sample.weight * coupling[sample.index]).double().sqrt()[:, None]
        rows = torch.cat([problem.rows(sample.index) * root, root], dim=1)
        product = rows.T @ rows
        out[k, :, k] += product
        out[j, :, j] += product
        out[k, :, j] = out[j, :, k] = -product
    return problem.sums.total(out).view(num_classes * columns, num_classes * columns)
