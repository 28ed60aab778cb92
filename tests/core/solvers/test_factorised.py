"""Directions by factorisation are those of conjugate gradients, bias and all."""

import pytest
import torch

from linprobe.core.problem import SoftmaxRegression
from linprobe.core.solvers.base import Point
from linprobe.core.solvers.factorised import FactorisedHessian
from linprobe.core.solvers.sampled_hessian import CGOptions, SampledHessian, conjugate_gradients
from linprobe.core.solvers.subspace import minimise_in_span

EVERYTHING = 10**6


def inverse(problem, p, l2, num_rows=EVERYTHING):
    leverage = problem.squared_norms() + 1
    penalty = torch.full((problem.num_features,), l2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    return FactorisedHessian(problem, p, leverage, penalty, num_rows, generator)


def at_random_weight(case, l2):
    problem = SoftmaxRegression(case.features, case.labels, case.num_classes)
    generator = torch.Generator().manual_seed(1)
    shape = (case.num_classes, case.features.shape[1])
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    start = Point(weight, weight.new_zeros(len(weight)), problem.logits(weight))
    p = minimise_in_span(problem, l2, start, accuracy=1e-14).predictions
    return problem, p, problem.backproject(problem.residuals(p)) + l2 * weight


@pytest.mark.parametrize("l2", [1e-2, 1e-5])
def test_direction_solves_the_newton_equation(case, l2):
    problem, p, gradient = at_random_weight(case, l2)
    found = -inverse(problem, p, l2)(gradient)
    hessian = SampledHessian(
        case.features, problem.loss, p, problem.sample_weight, p.new_full((1,), l2)
    )
    scale = float(gradient.abs().max())
    torch.testing.assert_close(hessian.product(found), -gradient, rtol=1e-5, atol=1e-6 * scale)
    options = CGOptions(tol=1e-9, max_steps=20_000)
    iterated, _ = conjugate_gradients(hessian, gradient, precondition=lambda g: g, options=options)
    slopes = [float((gradient * direction).sum()) for direction in (found, iterated)]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-4)


def test_a_rare_coupling_keeps_its_curvature():
    """Two classes that one sample in a thousand is unsure of, and others that all are."""
    generator = torch.Generator().manual_seed(0)
    n, l2 = 20_000, 1e-9
    features = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    p = torch.full((3, n), 1e-12, dtype=torch.float64)
    p[0], p[1] = 0.5, 0.5
    p[1:, ::1000] = 0.5 - 1e-12
    p[0, ::1000] = 1e-12
    p /= p.sum(0)
    problem = SoftmaxRegression(features, torch.arange(n) % 3, 3)
    full, drawn = inverse(problem, p, l2), inverse(problem, p, l2, 400)
    rare = torch.tensor([0.0, 1.0, -1.0])[:, None] * features[0]
    exact, sampled = (float((rare * one(rare)).sum()) for one in (full, drawn))
    assert sampled == pytest.approx(exact, rel=0.1)


def test_sure_samples_bend_as_little_as_they_do():
    """1 - p in float32 would be zero for the sure, or worse, rounding."""
    features = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    other = torch.full((64,), 1e-9)
    p = torch.stack([1 - other, other])
    right = torch.ones(2, 3)
    right[1] = -1
    low, high = (
        inverse(SoftmaxRegression(x, torch.arange(64) % 2, 2), p.to(x.dtype), 1e-12)(right.double())
        for x in (features, features.double())
    )
    torch.testing.assert_close(low, high, rtol=1e-3, atol=1e-3)
