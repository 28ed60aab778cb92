"""Every solve of the table against scipy, in float64 and float32, along the whole path."""

import math

import pytest
import torch

from linprobe.core.certificate import certify
from linprobe.core.problem import SoftmaxRegression
from linprobe.core.solvers import newton
from linprobe.core.solvers.base import NewtonOptions, Status
from linprobe.core.solvers.newton import SubsampledNewton
from linprobe.core.solvers.sketched import SketchedModel
from linprobe.core.solvers.whitened import WhitenedModel
from tests.support.reference import reference_optimum


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("rows", [50, 4000])
@pytest.mark.parametrize("widest", [0, 256], ids=["sketched", "whitened"])
def test_path_reaches_every_optimum(case, dtype, rows, widest, monkeypatch):
    monkeypatch.setattr(newton, "_ALWAYS_WHITENED", widest)
    monkeypatch.setattr(newton, "_MAX_WHITENED", widest)
    problem = SoftmaxRegression(case.features.to(dtype), case.labels, case.num_classes)
    solver = SubsampledNewton(problem, NewtonOptions(sample_rows=rows))
    tol = 1e-8 if dtype == torch.float64 else 1e-5
    starts = ()
    for exponent in range(1, 7):
        l2 = 10.0**-exponent
        solution = solver.solve(l2, tol=tol, max_passes=300, starts=starts)
        starts = (solution.point, *starts[:1])
        assert solution.status is Status.CONVERGED
        value, _, _ = reference_optimum(case.features, case.labels, case.num_classes, l2)
        point = solution.point
        certificate = certify(case.features, case.labels, point.weight, point.bias, l2)
        assert certificate.duality_gap <= 2 * tol
        assert certificate.objective - value <= tol
        assert float(point.bias.sum()) == pytest.approx(0, abs=1e-9)


def test_logits_belong_to_the_weight(case):
    problem = SoftmaxRegression(case.features.float(), case.labels, case.num_classes)
    point = SubsampledNewton(problem).solve(1e-4, tol=1e-5, max_passes=100).point
    logits = problem.margins(point.weight @ case.features.T)
    torch.testing.assert_close(point.logits.double(), logits, rtol=1e-4, atol=1e-4)


def test_pass_budget_is_kept_and_said(case):
    problem = SoftmaxRegression(case.features, case.labels, case.num_classes)
    solution = SubsampledNewton(problem).solve(1e-6, tol=1e-12, max_passes=1)
    assert solution.status is Status.MAX_PASSES_REACHED
    assert solution.num_passes <= 2


def test_impossible_tolerance_ends_at_the_precision_limit(case):
    problem = SoftmaxRegression(case.features.float(), case.labels, case.num_classes)
    solution = SubsampledNewton(problem).solve(1e-4, tol=1e-30, max_passes=10_000)
    assert solution.status is Status.PRECISION_LIMIT
    assert math.isfinite(solution.duality_gap)


def test_warm_start_is_cheaper(case):
    problem = SoftmaxRegression(case.features, case.labels, case.num_classes)
    solver = SubsampledNewton(problem)
    cold = solver.solve(1e-4, tol=1e-8, max_passes=300)
    warm = solver.solve(1e-4, tol=1e-8, max_passes=300, starts=(cold.point,))
    assert warm.num_passes < cold.num_passes
    assert warm.num_steps == 0


@pytest.mark.parametrize("k", [2, 3])
def test_relabelled_classes_permute_the_weight(k):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(300, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(k, (300,), generator=generator)
    order = torch.randperm(k, generator=generator)
    points = [
        SubsampledNewton(SoftmaxRegression(features, y, k))
        .solve(1e-2, tol=1e-12, max_passes=100)
        .point
        for y in (labels, order[labels])
    ]
    torch.testing.assert_close(points[0].weight, points[1].weight[order], atol=1e-5, rtol=1e-5)


def test_models_by_width_and_penalty():
    def model(num_features, l2, num_rows=4096):
        features = torch.ones(num_rows, num_features)
        problem = SoftmaxRegression(features, torch.arange(num_rows) % 2, 2)
        return type(SubsampledNewton(problem)._model(l2))

    assert model(256, 1e-1) is WhitenedModel
    assert model(257, 1e-6) is SketchedModel
    assert model(1024, 1e-7) is WhitenedModel
    assert model(1025, 1e-9) is SketchedModel
    assert model(1024, 1e-7, num_rows=4000) is SketchedModel
    assert model(256, 1e-1, num_rows=20) is WhitenedModel


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_solve_may_end_near_the_minimum_where_the_gap_cannot_tell(dtype):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(3000, 12, generator=generator, dtype=torch.float64)
    x *= torch.logspace(0, -2, 12, dtype=torch.float64)
    y = (x @ torch.randn(12, 4, generator=generator, dtype=torch.float64)).argmax(1)
    y[:900] = torch.randint(4, (900,), generator=generator)
    x -= x.mean(0)
    problem = SoftmaxRegression(x.to(dtype), y, 4)
    options = {"tol": 1e-10, "max_passes": 500}
    exact = SubsampledNewton(SoftmaxRegression(x, y, 4)).solve(1e-7, **options)
    near = SubsampledNewton(problem).solve(1e-7, **options, near=1e-5)
    assert near.status is Status.NEAR and near.duality_gap > 1e-5
    assert 0 <= near.objective - exact.objective + 1e-6 < 1e-5 + 2e-6
    assert near.num_passes < 0.8 * exact.num_passes
