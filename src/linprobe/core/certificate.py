"""The certificate: how far a given probe can be from the optimum, by code of its own.

It shares no arithmetic with the solvers and runs in float64 from the features on. Let Q be any
distributions q_i over the classes with ``sum_i s_i q_i = sum_i s_i e_{y_i}``: then the residuals
``r_i = s_i (q_i - e_{y_i})`` are a feasible point of Fenchel's dual problem, and for any weight W
and bias b with predictions p_i

    P(W, b) - P*  <=  sum_i s_i KL(q_i || p_i)  +  ||sum_i r_i x_i^T + l2 W||_F^2 / (2 l2).

The sum of both terms, neither of them negative, is the `duality_gap`. Q is what W predicts at the
best bias b*, which is solved for here, whatever b was given: there the second term is
``||grad_W P(W, b*)||^2 / (2 l2)``, and the first is P(W, b) - P(W, b*). The condition on Q is that
b* is optimal; without it the formula would be wrong. So where b* was found inexactly, Q is
rounded until the condition holds.
"""

from dataclasses import dataclass, field
from math import isfinite

import torch
from torch import Tensor

from linprobe.core.features import FeatureMatrix, Standardisation, as_features

_BLOCK_BYTES = 4 * 2**20  # of float64: larger blocks fall out of cache, five times slower
_CLASSES_AT_ONCE = 4  # of a mask (classes, n_samples)
_MAX_BIAS_STEPS = 1000
_NEAR = 1e-2  # largest relative residual of a class from which Newton's method is taken


@dataclass(frozen=True)
class Certificate:
    """What is proved of a probe (W, b) on its training data; float64 throughout.

    Attributes:
        objective: P(W, b) in nats.
        duality_gap: upper bound of P(W, b) - P* in nats; infinite where a number is not finite.
        grad_norm: ``||grad_W P(W, b*)||_F``, at the best bias for this weight.
        bias_residual: ``max_k |sum_i r_ik|`` at the given bias; 0 where the bias is optimal.
        cross_entropy: the data term of P(W, b) in nats.
        error_rate: fraction of wrong predictions, samples weighted as in P.
        gradient: ``grad_W P(W, b*)``, (n_classes, n_features).
    """

    objective: float
    duality_gap: float
    grad_norm: float
    bias_residual: float
    cross_entropy: float
    error_rate: float
    gradient: Tensor = field(repr=False, compare=False)


def certify(
    features: Tensor | FeatureMatrix,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor,
    l2: float,
    *,
    sample_weight: Tensor | None = None,
    standardisation: Standardisation | None = None,
) -> Certificate:
    """Bound the distance of a probe's objective from its minimum.

    Args:
        features: (n_samples, n_features), any floating dtype, a tensor or any `FeatureMatrix`; read
            twice, in row blocks, and never written to.
        labels: (n_samples,) int64 in 0..n_classes-1.
        weight: (n_classes, n_features) in the space where the penalty is stated.
        bias: (n_classes,).
        l2: the penalty, > 0.
        sample_weight: (n_samples,), non-negative; scaled to sum to 1. Default: equal.
        standardisation: map from `features` to the space of `weight`; default: none needed.
            Give raw features and this to recheck a saved probe.

    Returns:
        The certificate.
    """
    features = as_features(features)
    weight, bias = weight.double(), bias.double()
    if sample_weight is None:
        sample_weight = torch.ones(len(labels), device=labels.device)
    s = sample_weight.double() / sample_weight.sum(dtype=torch.float64)
    raw_weight, offset = weight, torch.zeros_like(bias)
    if standardisation is not None:
        raw_weight, offset = standardisation.to_raw(weight, offset)
    logits = float64_logits(features, raw_weight) + offset[:, None]
    mass = _class_mass(labels, s, len(bias))

    given = logits + bias[:, None]
    data_term = _cross_entropy(given, labels, s)
    bias_residual = float(_residuals(given.softmax(0), labels, s).sum(1).abs().max())
    best_bias = _best_bias(logits, mass, s, bias)
    predicted = _balanced((logits + best_bias[:, None]).softmax(0), s, mass)
    excess = _divergence(predicted, given.log_softmax(0), s)

    residuals = _residuals(predicted, labels, s)
    gradient = _float64_backproject(residuals, features)
    if standardisation is not None:
        gradient = standardisation.pull_back(gradient, residuals.sum(1))
    gradient += l2 * weight
    square = float(gradient.square().sum())
    gap = excess + square / (2 * l2)
    return Certificate(
        objective=data_term + 0.5 * l2 * float(weight.square().sum()),
        duality_gap=gap if isfinite(gap) else float("inf"),
        grad_norm=square**0.5,
        bias_residual=bias_residual,
        cross_entropy=data_term,
        error_rate=float(s @ (given.argmax(0) != labels).double()),
        gradient=gradient,
    )


def float64_logits(features: Tensor | FeatureMatrix, weight: Tensor) -> Tensor:
    """Compute ``weight @ features.T`` in float64, (n_classes, n_samples), whatever their dtype."""
    features = as_features(features)
    blocks = features.blocks(_rows(features))
    return torch.cat([weight.double() @ block.double().T for block in blocks], dim=1)


def _float64_backproject(residuals: Tensor, features: FeatureMatrix) -> Tensor:
    rows = _rows(features)
    total = residuals.new_zeros(len(residuals), features.num_features)
    for r, block in zip(residuals.split(rows, dim=1), features.blocks(rows), strict=True):
        total += r @ block.double()
    return total


def _rows(features: FeatureMatrix) -> int:
    return max(1, _BLOCK_BYTES // (8 * max(1, features.num_features)))


def _class_mass(labels: Tensor, s: Tensor, num_classes: int) -> Tensor:
    """Sum the weights of each class's samples, a few classes at a time: (n_classes,)."""
    classes = torch.arange(num_classes, device=labels.device)
    few = classes.split(_CLASSES_AT_ONCE)
    return torch.cat([(part[:, None] == labels).double() @ s for part in few])


def _residuals(predicted: Tensor, labels: Tensor, s: Tensor) -> Tensor:
    """Compute ``s_i (q_i - e_{y_i})``, overwriting the predictions (n_classes, n_samples)."""
    samples = torch.arange(len(labels), device=labels.device)
    predicted[labels, samples] -= 1.0
    return predicted.mul_(s)


def _cross_entropy(logits: Tensor, labels: Tensor, s: Tensor) -> float:
    return float(s @ (logits.logsumexp(0) - logits.gather(0, labels[None])[0]))


def _balanced(predicted: Tensor, s: Tensor, mass: Tensor) -> Tensor:
    """Move just so much probability that each class is predicted as often as it occurs.

    Classes predicted too often are scaled down; what each sample loses goes to the others in
    proportion to what they lack (Altschuler, Weed & Rigollet 2017, Algorithm 2).

    Args:
        predicted: (n_classes, n_samples), columns sum to 1.
        s: (n_samples,) weights of the samples.
        mass: (n_classes,) weight of the samples of each class.
    """
    often = predicted @ s
    kept = predicted * torch.where(often > mass, mass / often, 1.0)[:, None]
    lacking = (mass - kept @ s).clamp_min(0)
    total = lacking.sum()
    if not total > 0:
        return kept
    lost = (1 - kept.sum(0)).clamp_min(0)
    return kept + lost * (lacking / total)[:, None]


def _divergence(q: Tensor, log_p: Tensor, s: Tensor) -> float:
    """``sum_i s_i KL(q_i || p_i)``, not negative; NaN stays NaN."""
    terms = torch.where(q > 0, q * (q.log() - log_p), 0.0)
    terms = terms.where(~q.isnan(), q)
    return float((s @ terms.sum(0)).clamp_min(0))


def _best_bias(logits: Tensor, mass: Tensor, s: Tensor, bias: Tensor) -> Tensor:
    """Minimise the cross-entropy over the bias; minus infinity for classes without samples."""
    present = mass > 0
    best = torch.full_like(bias, float("-inf"))
    best[present] = _newton_bias(
        logits[present], s, mass[present], bias[present].nan_to_num(neginf=0.0)
    )
    return best


def _newton_bias(logits: Tensor, s: Tensor, mass: Tensor, bias: Tensor) -> Tensor:
    """Proportional fitting while far away, Newton near the minimum.

    ``b_k += log(mass_k / sum_i s_i p_ik)`` never increases the loss, and in logarithms it leaves
    even a saturated softmax, where Newton's Hessian is zero.
    """
    log_s = s.log()
    last = float("inf")
    for _ in range(_MAX_BIAS_STEPS):
        z = logits + bias[:, None]
        log_p = z - z.logsumexp(0)
        p = log_p.exp()
        gradient = p @ s - mass
        relative = float((gradient / mass).abs().max())
        if not isfinite(relative):
            break
        if relative > _NEAR:
            bias = bias + mass.log() - (log_p + log_s).logsumexp(1)
            continue
        if relative >= last and relative < 1e-10:  # rounding: no longer falling
            break
        last = relative
        ps = p * s
        hessian = torch.diag(ps.sum(1)) - ps @ p.T
        bias = bias - torch.linalg.lstsq(_gauged(hessian), gradient).solution
    return bias


def _gauged(hessian: Tensor) -> Tensor:
    """Make the Hessian regular along equal biases, where it is zero."""
    return hessian + hessian.diagonal().mean() / len(hessian)
