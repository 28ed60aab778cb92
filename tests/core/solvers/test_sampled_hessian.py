"""Row samples, and conjugate gradients on the Hessian of the rows that were drawn."""

import pytest
import torch

from linprobe.core.losses import Softmax
from linprobe.core.problem import SoftmaxRegression
from linprobe.core.solvers.base import Point
from linprobe.core.solvers.sampled_hessian import (
    CGOptions,
    SampledHessian,
    conjugate_gradients,
    draw_rows,
)
from linprobe.core.solvers.subspace import minimise_in_span

L2 = 1e-2


@pytest.fixture
def hessian(case):
    """Of all rows, at the best bias for a random weight."""
    problem = SoftmaxRegression(case.features, case.labels, case.num_classes)
    generator = torch.Generator().manual_seed(3)
    shape = (case.num_classes, case.features.shape[1])
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    start = Point(weight, weight.new_zeros(len(weight)), problem.logits(weight))
    point = minimise_in_span(problem, L2, start, accuracy=1e-15).point
    p = (point.logits + point.bias[:, None]).softmax(0)
    return SampledHessian(
        case.features, problem.loss, p, problem.sample_weight, p.new_full((1,), L2)
    ), point


def objective(case, weight):
    """P at the best bias, by Newton on the bias."""
    problem = SoftmaxRegression(case.features, case.labels, case.num_classes)
    point = Point(weight, weight.new_zeros(len(weight)), problem.logits(weight))
    return minimise_in_span(problem, L2, point, accuracy=1e-16).objective


def test_product_is_the_curvature_of_the_objective_at_the_best_bias(case, hessian):
    model, point = hessian
    generator = torch.Generator().manual_seed(4)
    d = torch.randn(point.weight.shape, generator=generator, dtype=torch.float64)
    d /= torch.linalg.vector_norm(case.features @ d.T) / len(case.labels) ** 0.5
    h = 1e-3
    values = [objective(case, point.weight + t * d) for t in (-h, 0.0, h)]
    curvature = (values[0] - 2 * values[1] + values[2]) / h**2
    assert float((d * model.product(d)).sum()) == pytest.approx(curvature, rel=1e-3, abs=1e-5)


def test_conjugate_gradients_solve(case, hessian):
    model, point = hessian
    gradient = torch.randn(
        point.weight.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    )
    options = CGOptions(tol=1e-10, max_steps=2000)
    found, solved = conjugate_gradients(model, gradient, precondition=lambda g: g, options=options)
    assert solved
    torch.testing.assert_close(model.product(found), -gradient, rtol=1e-6, atol=1e-6)
    stopped, ended = conjugate_gradients(
        model, gradient, precondition=lambda g: g, options=CGOptions(tol=1e-10, max_steps=1)
    )
    assert not ended or point.weight.numel() <= 2
    assert float((stopped * gradient).sum()) < 0  # a descent direction whenever it stops


def test_importance_is_the_gini_impurity():
    p = torch.tensor([[1.0, 0.5, 0.25], [0.0, 0.5, 0.75]])
    torch.testing.assert_close(
        Softmax(torch.zeros(3, dtype=torch.int64), 2).importance(p), torch.tensor([0.0, 0.5, 0.375])
    )


def test_samples_of_weight_zero_are_never_drawn(case):
    weights = torch.ones(len(case.labels))
    weights[::2] = 0
    problem = SoftmaxRegression(case.features, case.labels, case.num_classes, weights)
    generator = torch.Generator().manual_seed(0)
    importance = problem.squared_norms() * problem.sample_weight
    for num in (5, len(case.labels)):
        index = draw_rows(problem, importance, num, generator).index
        assert (index % 2 == 1).all()


def test_drawn_rows_estimate_sums_without_bias(case):
    problem = SoftmaxRegression(case.features, case.labels, case.num_classes)
    importance = problem.squared_norms()
    generator = torch.Generator().manual_seed(0)
    exact = float(problem.sample_weight @ importance)
    num = max(3, len(case.labels) // 5)
    estimates = []
    for _ in range(300):
        sample = draw_rows(problem, importance, num, generator)
        assert len(torch.unique(sample.index)) == len(sample.index) <= num
        estimates.append(float(sample.weight @ importance[sample.index]))
    assert sum(estimates) / 300 == pytest.approx(exact, rel=0.02)
    everything = draw_rows(problem, importance, len(case.labels), generator)
    assert len(everything.index) == len(case.labels)
