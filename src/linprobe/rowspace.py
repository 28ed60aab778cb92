"""Layers of low rank, solved on as many coordinates as their rank.

A linear layer on a small input has as many features as it has units, but no more rank than its
input. The optimal weight lies in the span of the feature rows (the gradient of the cross-entropy
does, and a part outside would only cost penalty), so with an orthonormal basis V of it,
``min P(W)`` over ``W = A V^T`` is the same problem on features ``x V``, with ``||W|| = ||A||``.
"""

import torch
from torch import Tensor

MOST = 1024
"""Largest rank that is looked for."""

_ROWS = 1536  # a sample that has more rank than MOST shows it
_CHECKED_ROWS = 256
# Share of the features' energy that may lie outside, about what float32 rounding leaves there.
# It moves the optimum's gap by at most this over l2, and the certificate sees it.
_OUTSIDE = 1e-12


def row_space(features: Tensor, generator: torch.Generator) -> Tensor | None:
    """Find an orthonormal basis of the span of the rows, if they are of low rank.

    Args:
        features: (n_samples, n_features) float32 or float64.
        generator: of the row samples, on the CPU.

    Returns:
        (n_features, rank) in the dtype of `features`; None where the rank is above `MOST` or no
        less than half of the features.
    """
    num_rows, num_features = features.shape
    if num_features <= MOST or not bool(features.any()):
        return None
    order = torch.randperm(num_rows, generator=generator).to(features.device)
    rows = features[order[:_ROWS]].double()
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    outside = values.clamp_min(0).cumsum(0) <= _OUTSIDE * values.sum()
    rank = len(values) - int(outside.sum())
    if rank > min(MOST, num_features // 2):
        return None
    # A second orthogonalisation: the first is as good as the smallest eigenvalue kept.
    basis: Tensor = torch.linalg.qr(rows.T @ vectors[:, len(values) - rank :]).Q
    others = features[order[_ROWS : _ROWS + _CHECKED_ROWS]].double()
    left = others - (others @ basis) @ basis.T
    if float(left.square().sum()) > 4 * _OUTSIDE * float(others.square().sum()):
        return None
    return basis.to(features.dtype)
