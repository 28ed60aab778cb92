"""Newton directions by factorising the Hessian of sampled rows, for few features and classes."""

import torch
from torch import Tensor

_BLOCK = 4096


def solve_dense(
    features: Tensor, probabilities: Tensor, sample_weight: Tensor, penalty: Tensor, right: Tensor
) -> Tensor:
    """Minus the inverse Hessian of P at its best bias times `right`.

    Args:
        features: (m, n_features).
        probabilities: (n_classes, m), same dtype.
        sample_weight: (m,), same dtype.
        penalty: second derivative of the penalty along each feature, (n_features,).
        right: (n_classes, n_features), the gradient over the weight; that over the bias is zero.

    Returns:
        (n_classes, n_features) float64.
    """
    num_classes, num_features = right.shape
    ones = features.new_ones(len(features), 1)
    hessian = _blocks(torch.cat([features, ones], dim=1), probabilities, sample_weight)
    width = num_features + 1
    hessian.view(num_classes * width, -1).diagonal().view(num_classes, width)[:, :-1] += penalty
    # Equal biases change nothing: without curvature of its own, that direction is left at zero.
    bias = torch.arange(num_classes, device=right.device) * width + num_features
    hessian[bias[:, None], bias] += 1 / num_classes
    scale = hessian.diagonal().rsqrt()
    hessian.mul_(scale).mul_(scale[:, None])
    gradient = torch.cat([right.double(), right.new_zeros(num_classes, 1).double()], dim=1)
    factor = _cholesky(hessian)
    found = torch.cholesky_solve((gradient.view(-1) * scale)[:, None], factor)[:, 0] * scale
    return -found.view(num_classes, width)[:, :-1]


def _blocks(features: Tensor, probabilities: Tensor, sample_weight: Tensor) -> Tensor:
    """``sum_i s_i (diag(p_i) - p_i p_i^T) (x) z_i z_i^T``, float64."""
    num_classes, width = len(probabilities), features.shape[1]
    shape = (num_classes, width, num_classes, width)
    out = torch.zeros(shape, dtype=torch.float64, device=features.device)
    for start in range(0, len(features), _BLOCK):
        block = slice(start, start + _BLOCK)
        z, p = features[block], probabilities[:, block]
        weighted = p * sample_weight[block]
        for k in range(num_classes):
            # 1 - p_k from the others: where the probe is sure, subtracting would be all rounding.
            curved = -weighted[k] * p[k:]
            curved[0] = weighted[k] * (p[:k].sum(0) + p[k + 1 :].sum(0))
            right = curved.T.contiguous()[:, :, None] * z[:, None]  # (rows, classes from k, width)
            product = z.T @ right.reshape(len(z), -1)
            out[k, :, k:] += product.view(width, -1, width)
    for k in range(1, num_classes):
        out[k, :, :k] = out[:k, :, k].permute(2, 0, 1)
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
