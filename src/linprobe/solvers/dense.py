"""The Hessian of sampled rows, factorised: for few features and classes."""

from itertools import combinations

import torch
from torch import Tensor


class DenseInverse:
    """Inverse Hessian of P at its best bias.

    Args:
        features: (m, n_features).
        probabilities: (n_classes, m), same dtype.
        sample_weight: (m,), same dtype.
        penalty: second derivative of the penalty along each feature, (n_features,).
    """

    def __init__(
        self, features: Tensor, probabilities: Tensor, sample_weight: Tensor, penalty: Tensor
    ) -> None:
        num_classes, num_features = len(probabilities), features.shape[1]
        ones = features.new_ones(len(features), 1)
        hessian = _blocks(torch.cat([features, ones], dim=1), probabilities, sample_weight)
        width = num_features + 1
        hessian.view(num_classes * width, -1).diagonal().view(num_classes, width)[:, :-1] += penalty
        # Equal biases change nothing: without curvature of its own, that direction is left at zero.
        bias = torch.arange(num_classes, device=features.device) * width + num_features
        hessian[bias[:, None], bias] += 1 / num_classes
        self._scale = hessian.diagonal().rsqrt()
        hessian.mul_(self._scale).mul_(self._scale[:, None])
        self._factor = _cholesky(hessian)

    def __call__(self, right: Tensor) -> Tensor:
        """Apply it to a gradient over the weight (n_classes, n_features); that of the bias is 0."""
        num_classes, _ = right.shape
        gradient = torch.cat([right.double(), right.new_zeros(num_classes, 1).double()], dim=1)
        scaled = (gradient.view(-1) * self._scale)[:, None]
        found = torch.cholesky_solve(scaled, self._factor)[:, 0] * self._scale
        return found.view(num_classes, -1)[:, :-1].to(right.dtype)


def _blocks(features: Tensor, probabilities: Tensor, sample_weight: Tensor) -> Tensor:
    """``sum_i s_i (diag(p_i) - p_i p_i^T) (x) z_i z_i^T``, float64.

    Each sample couples pairs of classes: it is the sum of ``s_i p_ik p_ij z_i z_i^T`` times
    ``(e_k - e_j)(e_k - e_j)^T`` over pairs, without a ``1 - p`` that would be all rounding where
    the probe is sure.
    """
    num_classes, width = len(probabilities), features.shape[1]
    shape = (num_classes, width, num_classes, width)
    out = torch.zeros(shape, dtype=torch.float64, device=features.device)
    for k, j in combinations(range(num_classes), 2):
        root = (sample_weight * probabilities[k] * probabilities[j]).sqrt()
        scaled = features * root[:, None]
        product = scaled.T @ scaled
        out[k, :, k] += product
        out[j, :, j] += product
        out[k, :, j] = out[j, :, k] = -product
    return out.view(num_classes * width, num_classes * width)


def _cholesky(matrix: Tensor) -> Tensor:
    """Factor of a positive semidefinite matrix of unit diagonal, lifted as little as it needs."""
    lift = 0.0
    while True:
        found = torch.linalg.cholesky_ex(matrix)
        if not int(found.info):
            factor: Tensor = found.L
            return factor
        more = max(10 * lift, 1e-14)
        matrix.diagonal().add_(more - lift)
        lift = more
