"""The whitened model: how near its directions are to Newton's own."""

import pytest
import torch
from torch import Tensor

from linprobe.core.problem import SoftmaxRegression
from linprobe.core.solvers import whitened
from linprobe.core.solvers.base import NewtonOptions, Point
from linprobe.core.solvers.sampled_hessian import CGOptions, SampledHessian, conjugate_gradients
from linprobe.core.solvers.subspace import minimise_in_span
from linprobe.core.solvers.whitened import WhitenedModel


def begun(features: Tensor, labels: Tensor, l2: float, pair_rows: int = 12):
    problem = SoftmaxRegression(features, labels, int(labels.max()) + 1)
    zero = torch.zeros(problem.num_classes, problem.num_features, dtype=torch.float64)
    start = Point(zero, zero[:, 0], problem.logits(zero))
    minimum = minimise_in_span(problem, l2, start, accuracy=1e-12)
    options = NewtonOptions(sample_rows=len(labels), pair_rows=pair_rows)
    model = WhitenedModel(problem, options, torch.Generator().manual_seed(0))
    model.begin(minimum.predictions, l2)
    gradient = problem.backproject(problem.residuals(minimum.predictions))
    return problem, model, minimum.predictions, gradient


def newton_share(problem, p, gradient, l2, direction):
    """How much of the slope of Newton's own direction this one has, and its best step length."""
    full = SampledHessian(
        problem.features.values.double(),
        problem.loss,
        p.double(),
        problem.sample_weight.double(),
        torch.full((1,), l2, dtype=torch.float64),
    )
    options = CGOptions(tol=1e-9, max_steps=5000)
    exact, _ = conjugate_gradients(full, gradient, precondition=lambda g: g, options=options)
    slope = float((gradient * direction).sum())
    step = -slope / float((direction * full.product(direction)).sum())
    return slope / float((gradient * exact).sum()), step


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("l2", [1e-2, 1e-6])
def test_direction_is_newtons_however_steep_the_spectrum(dtype, l2):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(3000, 12, generator=generator, dtype=torch.float64)
    features *= 10.0 ** -torch.arange(12)[None] / features.square().sum(1).mean().sqrt()
    features -= features.mean(0)
    labels = torch.randint(3, (3000,), generator=generator)
    problem, model, p, gradient = begun(features.to(dtype), labels, l2)
    found = model.direction(p, gradient)
    direction = found.weight
    torch.testing.assert_close(
        found.logits.double(), problem.logits(direction).double(), rtol=1e-3, atol=1e-3
    )
    assert newton_share(problem, p, gradient, l2, direction) == pytest.approx((1, 1), abs=0.05)


def test_coordinates_serve_for_a_smaller_penalty(case):
    problem, model, p, gradient = begun(case.features, case.labels, 1e-3)
    before = model._transform
    for l2, same in ((1e-4, True), (1e-5, False)):
        model.begin(p, l2)
        assert (model._transform is before) is same
        direction = model.direction(p, gradient).weight
        assert newton_share(problem, p, gradient, l2, direction) == pytest.approx((1, 1), abs=0.05)


def test_reads_in_coordinates_are_those_of_the_problem(case):
    problem, model, p, _ = begun(case.features, case.labels, 1e-4)
    residuals = problem.residuals(p)
    torch.testing.assert_close(model.backproject(residuals), problem.backproject(residuals))


def test_a_factorised_hessian_takes_over_where_iterations_do_not_suffice(monkeypatch):
    """Two of three classes are hardly ever confused: curvature that a sample of rows would miss."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(6000, 10, generator=generator, dtype=torch.float64)
    scores = features @ torch.randn(10, 3, generator=generator, dtype=torch.float64)
    labels = (3 * scores + torch.tensor([0.0, 9.0, -9.0], dtype=torch.float64)).argmax(1)
    features -= features.mean(0)
    monkeypatch.setattr(whitened, "_CG", CGOptions(tol=0.05, max_steps=0))
    problem, model, p, gradient = begun(features, labels, 1e-6, pair_rows=300)
    direction = model.direction(p, gradient).weight
    assert model._inverse is not None
    assert newton_share(problem, p, gradient, 1e-6, direction) == pytest.approx((1, 1), abs=0.05)
    kept = model._inverse
    model.direction(p, 1e-3 * gradient)
    assert model._inverse is kept
    model.direction(p, gradient)  # at the same predictions
    assert model._inverse is kept
    model.direction(p.clone(), gradient)  # no progress: factorised anew
    assert model._inverse is not kept
