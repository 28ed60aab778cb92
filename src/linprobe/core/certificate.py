"""The certificate: how far a given probe can be from the optimum, by code of its own.

It shares no arithmetic with the solvers and runs in float64 from the features on. For softmax, let
Q be any distributions q_i over the classes with ``sum_i s_i q_i = sum_i s_i e_{y_i}``: then the
residuals ``r_i = s_i (q_i - e_{y_i})`` are a feasible point of Fenchel's dual problem, and for any
weight W and bias b with predictions p_i

    P(W, b) - P*  <=  sum_i s_i KL(q_i || p_i)  +  ||sum_i r_i x_i^T + l2 W||_F^2 / (2 l2).

The sum of both terms, neither of them negative, is the `duality_gap`. Q is what W predicts at the
best bias b*, which is solved for here, whatever b was given: there the second term is
``||grad_W P(W, b*)||^2 / (2 l2)``, and the first is P(W, b) - P(W, b*). The condition on Q is that
b* is optimal; without it the formula would be wrong. So where b* was found inexactly, Q is
rounded until the condition holds.

For squared error, ``loss_i(z) = ||z - t_i||^2 / 2`` with targets t_i in R^K, the same holds with
any q_i in R^K and ``sum_i s_i q_i = sum_i s_i t_i``. The loss's conjugate is
``||u||^2 / 2 + u t_i``; with ``u_i = q_i - t_i``, which is the loss's slope at q_i, the two add up
to ``loss_i(z_i) + loss_i*(u_i) = u_i z_i + ||q_i - z_i||^2 / 2``. Any r_i = s_i u_i of sum zero
(the bias is free) are dual feasible, with dual value
``-sum_i s_i loss_i*(u_i) - ||sum_i r_i x_i^T||_F^2 / (2 l2)``. Subtract it from P(W, b): the inner
products sum to ``<W, sum_i r_i x_i^T>``, which completes a square, and what is left is

    P(W, b) - P*  <=  sum_i s_i ||q_i - z_i||^2 / 2  +  ||sum_i r_i x_i^T + l2 W||_F^2 / (2 l2).

In both, the first term is the Bregman divergence of the predictions: see `linprobe.core.duals`.
"""

from dataclasses import dataclass, field
from math import isfinite

import torch
from torch import Tensor

from linprobe.core.duals import Dual, SoftmaxDual, SquaredDual, row_blocks
from linprobe.core.features import DenseFeatures, FeatureMatrix, Standardisation, as_features
from linprobe.core.linalg import put_columns, take_columns
from linprobe.core.sums import LocalSums, Sums
from linprobe.runtime.defaults import own_defaults
from linprobe.runtime.devices import solving_device

_BLOCK_BYTES = 4 * 2**20  # of float64: larger blocks fall out of cache, five times slower


@dataclass(frozen=True)
class Certificate:
    """Bound on the distance of a probe (W, b) from the optimum on its training data, in float64.

    Attributes:
        objective: P(W, b) in nats.
        duality_gap: upper bound of P(W, b) - P* in nats; infinite where a number is not finite.
        grad_norm: ``||grad_W P(W, b*)||_F``, at the best bias for this weight.
        bias_residual: ``max_k |sum_i r_ik|`` at the given bias; 0 where the bias is optimal.
        cross_entropy: the data term of P(W, b), in nats; of a squared error, that.
        error_rate: fraction of wrong predictions, samples weighted as in P; NaN of squared error.
        gradient: ``grad_W P(W, b*)``, (n_classes, n_features).
        best_bias: b*, (n_classes,).
    """

    objective: float
    duality_gap: float
    grad_norm: float
    bias_residual: float
    cross_entropy: float
    error_rate: float
    gradient: Tensor = field(repr=False, compare=False)
    best_bias: Tensor = field(repr=False, compare=False)


@own_defaults()
def certify(
    features: Tensor | FeatureMatrix,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor,
    l2: float,
    *,
    sample_weight: Tensor | None = None,
    standardisation: Standardisation | None = None,
    sums: Sums | None = None,
) -> Certificate:
    """Bound the distance of a probe's objective from its minimum.

    Args:
        features: (n_samples, n_features), any floating dtype, a tensor or any `FeatureMatrix`; read
            twice, in row blocks, and never written to. A tensor on a device without float64 is
            moved to the CPU.
        labels: (n_samples,) int64 in 0..n_classes-1; or real targets (n_samples, n_classes) of a
            squared error.
        weight: (n_classes, n_features) in the space where the penalty is stated.
        bias: (n_classes,).
        l2: the penalty, > 0.
        sample_weight: (n_samples,), non-negative; scaled to sum to 1. Default: equal.
        standardisation: map from `features` to the space of `weight`; default: none needed.
            Give raw features and this to recheck a saved probe.
        sums: completes sums over samples, of which other processes have some; default: all are
            here.

    Returns:
        The certificate.
    """
    if sample_weight is None:
        sample_weight = torch.ones(len(labels), device=labels.device)
    features = as_features(features)
    place, _ = solving_device(features.device)
    if isinstance(features, DenseFeatures):
        features = DenseFeatures(features.values.to(place))
    labels, sample_weight = labels.to(place), sample_weight.to(place)
    weight, bias = weight.to(place, torch.float64), bias.to(place, torch.float64)
    sums = sums or LocalSums()
    dual = _dual(labels, len(bias), sample_weight, sums)
    logits = _logits(features, weight, standardisation)
    data_term, error_rate, bias_residual = _at_given_bias(dual, logits, bias, sums)
    best_bias = dual.best_bias(logits, bias)
    excess, gradient, residual_sum = _dual_point(dual, logits, bias, best_bias, features, sums)
    if standardisation is not None:
        gradient = standardisation.pull_back(gradient, residual_sum)
    gradient += l2 * weight
    square = float(gradient.square().sum())
    gap = excess + square / (2 * l2)
    return Certificate(
        objective=data_term + 0.5 * l2 * float(weight.square().sum()),
        duality_gap=gap if isfinite(gap) else float("inf"),
        grad_norm=square**0.5,
        bias_residual=bias_residual,
        cross_entropy=data_term,
        error_rate=error_rate,
        gradient=gradient,
        best_bias=best_bias,
    )


def _dual(targets: Tensor, num_outputs: int, sample_weight: Tensor, sums: Sums) -> Dual:
    s = sample_weight.double() / sums.total(sample_weight.sum(dtype=torch.float64))
    if targets.is_floating_point():
        return SquaredDual(targets.double().T, s, sums)
    return SoftmaxDual(targets, num_outputs, s, sums)


def _logits(
    features: FeatureMatrix, weight: Tensor, standardisation: Standardisation | None
) -> Tensor:
    """Logits of a weight that takes standardised features, without bias: (n_classes, n_samples)."""
    if standardisation is None:
        return float64_logits(features, weight)
    raw, offset = standardisation.to_raw(weight, weight.new_zeros(len(weight)))
    return float64_logits(features, raw) + offset[:, None]


def float64_logits(features: Tensor | FeatureMatrix, weight: Tensor) -> Tensor:
    """Compute ``weight @ features.T`` in float64, (n_classes, n_samples), whatever their dtype."""
    features, weight = as_features(features), weight.double()
    out = weight.new_empty(len(weight), features.num_rows)
    for where, block in features.parts(_rows(features)):
        put_columns(out, where, weight @ block.double().T)
    return out


def _at_given_bias(
    dual: Dual, logits: Tensor, bias: Tensor, sums: Sums
) -> tuple[float, float, float]:
    """Compute data term, error rate and the largest sum of residuals, a part of the rows at once.

    Only logits are held for all classes and samples.
    """
    value = error = 0.0
    residual = torch.zeros_like(bias)
    for rows in row_blocks(logits.shape[1], len(bias)):
        some, given = dual.part(rows), logits[:, rows] + bias[:, None]
        value, error = value + some.value(given), error + some.error_rate(given)
        residual += some.residuals(some.predictions(given)).sum(1)
    total = sums.total(torch.cat([residual, residual.new_tensor([value, error])]))
    return float(total[-2]), float(total[-1]), float(total[:-2].abs().max())


def _dual_point(
    dual: Dual,
    logits: Tensor,
    bias: Tensor,
    best_bias: Tensor,
    features: FeatureMatrix,
    sums: Sums,
) -> tuple[float, Tensor, Tensor]:
    """Compute the divergence of Q, ``sum_i r_i x_i^T`` and ``sum_i r_i``."""
    mean, total = torch.zeros_like(bias), torch.zeros_like(bias)
    for rows in row_blocks(logits.shape[1], len(bias)):
        some = dual.part(rows)
        mean += some.mean(some.predictions(logits[:, rows] + best_bias[:, None]))
    mean = sums.total(mean)
    excess, gradient = 0.0, logits.new_zeros(len(bias), features.num_features)
    few = next(row_blocks(max(1, features.num_rows), len(bias))).stop
    for where, block in features.parts(min(_rows(features), few)):
        some, z = dual.part(where), take_columns(logits, where)
        predicted = some.balanced(some.predictions(z + best_bias[:, None]), mean)
        excess += some.divergence(predicted, z + bias[:, None])
        residuals = some.residuals(predicted)
        total += residuals.sum(1)
        gradient += residuals @ block.double()
    both = sums.total(torch.cat([total, total.new_tensor([excess])]))
    return float(both[-1]), sums.total(gradient), both[:-1]


def _rows(features: FeatureMatrix) -> int:
    return max(1, _BLOCK_BYTES // (8 * max(1, features.num_features)))
