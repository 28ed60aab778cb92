"""Products of a tall feature matrix with a few columns, shaped for the memory system.

Both products of a softmax regression are GEMMs with one side of only K columns (K classes).
Libraries split such a product badly; the shapes below were the fastest of those that
`python -m benchmarks.products` compares, on float32 features of 128 to 25,088 columns. With
hundreds of classes the library's own product is near the machine's rate, and writes no array twice.
"""

import torch
from torch import Tensor

LinAlgError: type[RuntimeError] = torch.linalg.LinAlgError  # type: ignore[attr-defined]
"""A factorisation that has failed; PyTorch doesn't export the name to type checkers."""

_LOGIT_ROWS = 1000
_GRADIENT_ROWS = 500
_FEW_CLASSES = 100
_SUMMED = 32  # numbers in a row


def class_logits(features: Tensor, weight: Tensor) -> Tensor:
    """Return ``weight @ features.T``, contiguous, in the dtype of `features`.

    Args:
        features: (n_samples, n_features).
        weight: (n_classes, n_features), same dtype and device.

    Returns:
        (n_classes, n_samples): a row a class, so that a softmax over classes vectorises
        over samples (20 times faster on a CPU than over the last dimension).
    """
    num_rows, num_features = features.shape
    if not _needs_blocks(features, len(weight), _LOGIT_ROWS):
        return (weight @ features.T).contiguous()
    whole = num_rows - num_rows % _LOGIT_ROWS
    out = features.new_empty(len(weight), num_rows)
    blocks = features[:whole].view(-1, _LOGIT_ROWS, num_features).transpose(1, 2)
    product = torch.matmul(weight, blocks)  # (n_blocks, n_classes, rows)
    out[:, :whole] = product.transpose(0, 1).reshape(len(weight), whole)
    if whole < num_rows:
        out[:, whole:] = weight @ features[whole:].T
    return out


def backproject(residuals: Tensor, features: Tensor) -> Tensor:
    """Return ``residuals @ features``: the sum over samples of residual times feature.

    Args:
        residuals: (n_classes, n_samples).
        features: (n_samples, n_features), same dtype and device.

    Returns:
        (n_classes, n_features).
    """
    num_rows, num_features = features.shape
    if not _needs_blocks(features, len(residuals), _GRADIENT_ROWS):
        return residuals @ features
    whole = num_rows - num_rows % _GRADIENT_ROWS
    left = residuals[:, :whole].view(len(residuals), -1, _GRADIENT_ROWS).transpose(0, 1)
    out = torch.bmm(left, features[:whole].view(-1, _GRADIENT_ROWS, num_features)).sum(0)
    if whole < num_rows:
        out += residuals[:, whole:] @ features[whole:]
    return out


def _needs_blocks(features: Tensor, num_classes: int, block: int) -> bool:
    on_cpu = not features.is_cuda and features.dtype != torch.bfloat16
    return on_cpu and num_classes <= _FEW_CLASSES and len(features) >= 2 * block


def take_columns(values: Tensor, where: slice | Tensor) -> Tensor:
    """Take columns of (m, n) values; of an index several times as fast as ``values[:, where]``."""
    return values[:, where] if isinstance(where, slice) else values.index_select(1, where)


def put_columns(out: Tensor, where: slice | Tensor, values: Tensor) -> None:
    """Write columns of `out` (m, n), none of them twice, as `take_columns` takes them."""
    if isinstance(where, slice):
        out[:, where] = values
    else:
        out.index_copy_(1, where, values)


def float64_sum(values: Tensor) -> Tensor:
    """Sum over the last dimension, in float64.

    A float32 accumulator would round thousands of equal addends the same way; a copy of all in
    float64 takes thirty times as long. So float32 serves for a few addends at a time.
    """
    count = values.shape[-1] // _SUMMED
    whole = count * _SUMMED
    sums: Tensor = values[..., :whole].unflatten(-1, (count, _SUMMED)).sum(-1)
    total: Tensor = sums.sum(-1, dtype=torch.float64)
    return total + values[..., whole:].sum(-1, dtype=torch.float64)


def fast_bfloat16(device: torch.device) -> bool:
    """Tell whether `device` multiplies bfloat16 matrices faster than float32 ones."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def cholesky(matrix: Tensor) -> Tensor:
    """Factor of a positive semidefinite matrix of unit diagonal, lifted as little as it needs.

    Args:
        matrix: (m, m) float64; its diagonal is changed.

    Raises:
        LinAlgError: It is not finite.
    """
    lift = 0.0
    while True:
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if not int(failed):
            return factor
        if not bool(matrix.isfinite().all()):
            raise LinAlgError("the Hessian is not finite")
        more = max(10 * lift, 1e-14)
        matrix.diagonal().add_(more - lift)
        lift = more
