"""Directions by factorisation are those of conjugate gradients, bias and all."""

import pytest
import torch

from linprobe.problem import SoftmaxRegression
from linprobe.solvers.base import Point
from linprobe.solvers.dense import DenseInverse
from linprobe.solvers.sampled_hessian import CGOptions, SampledHessian, conjugate_gradients
from linprobe.solvers.subspace import minimise_in_span


@pytest.mark.parametrize("l2", [1e-2, 1e-5])
def test_direction_solves_the_newton_equation(case, l2):
    problem = SoftmaxRegression(case.features, case.labels, case.num_classes)
    generator = torch.Generator().manual_seed(1)
    shape = (case.num_classes, case.features.shape[1])
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    start = Point(weight, weight.new_zeros(len(weight)), problem.logits(weight))
    p = minimise_in_span(problem, l2, start, accuracy=1e-14).probabilities
    gradient = problem.backproject(problem.residuals(p)) + l2 * weight
    s, penalty = problem.sample_weight, p.new_full((1,), l2)
    found = -DenseInverse(case.features, p, s, penalty.expand(shape[1]))(gradient)
    hessian = SampledHessian(case.features, p, s, penalty)
    scale = float(gradient.abs().max())
    torch.testing.assert_close(hessian.product(found), -gradient, rtol=1e-5, atol=1e-6 * scale)
    options = CGOptions(tol=1e-9, max_steps=20_000)
    iterated, _ = conjugate_gradients(hessian, gradient, precondition=lambda g: g, options=options)
    slopes = [float((gradient * direction).sum()) for direction in (found, iterated)]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-4)


def test_sure_samples_bend_as_little_as_they_do():
    """1 - p in float32 would be zero for the sure, or worse, rounding."""
    features = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    other = torch.full((64,), 1e-9)
    p = torch.stack([1 - other, other])
    s = torch.full((64,), 1 / 64)
    right = torch.ones(2, 3)
    right[1] = -1
    low, high = (
        DenseInverse(x, p.to(x.dtype), s.to(x.dtype), x.new_zeros(3) + 1e-12)(right.double())
        for x in (features, features.double())
    )
    torch.testing.assert_close(low, high, rtol=1e-3, atol=1e-3)
