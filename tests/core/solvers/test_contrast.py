"""Two classes solved as one row: the optimum of both, at the same certified gap."""

import math

import pytest
import torch

from linprobe.core.certificate import certify
from linprobe.core.problem import SoftmaxRegression
from linprobe.core.solvers.base import NewtonOptions, Status
from linprobe.core.solvers.contrast import (
    ContrastNewton,
    ContrastRefinement,
    newton,
    refinement,
)
from linprobe.core.solvers.newton import SubsampledNewton
from linprobe.core.solvers.refinement import Refinement
from tests.support.reference import reference_optimum

N, D = 400, 7


@pytest.fixture(params=[False, True], ids=["overlapping", "separable"])
def data(request):
    source = torch.Generator().manual_seed(4)
    features = torch.randn(N, D, generator=source, dtype=torch.float64)
    features *= torch.logspace(0, -3, D, dtype=torch.float64)
    noise = 0 if request.param else 1
    score = features[:, 0] + noise * torch.randn(N, generator=source, dtype=torch.float64)
    return features, (score > 0.7).long()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("rows", [50, None])
def test_path_reaches_every_optimum(data, dtype, rows):
    features, labels = data
    solver = ContrastNewton(
        SoftmaxRegression(features.to(dtype), labels, 2), NewtonOptions(sample_rows=rows)
    )
    tol = 1e-8 if dtype == torch.float64 else 1e-5
    starts = ()
    for exponent in range(1, 7):
        l2 = 10.0**-exponent
        solution = solver.solve(l2, tol=tol, max_passes=300, starts=starts)
        starts = (solution.point, *starts[:1])
        assert (solution.status, solution.l2) == (Status.CONVERGED, l2)
        value, _, _ = reference_optimum(features, labels, 2, l2)
        point = solution.point
        certificate = certify(features, labels, point.weight, point.bias, l2)
        assert certificate.duality_gap <= 2 * tol
        assert certificate.objective - value <= tol
        assert solution.objective == pytest.approx(certificate.objective, rel=1e-5)
        for values in (point.weight, point.bias, point.logits):
            assert torch.equal(values[0], -values[1])


def test_its_refinement_is_that_of_two_rows(data):
    features, labels = data[0].float(), data[1]
    problem, l2 = SoftmaxRegression(features, labels, 2), 1e-4
    start = newton(problem).solve(l2, tol=1e-5, max_passes=99).point

    def refined(kind):
        steps, point = kind(problem, l2, NewtonOptions()), start
        for _ in range(4):
            here = certify(features, labels, point.weight, point.bias, l2)
            point, _ = steps.step(point, here.gradient, here.best_bias, 0.0)
        return point, certify(features, labels, point.weight, point.bias, l2)

    assert isinstance(refinement(problem, l2, NewtonOptions()), ContrastRefinement)
    point, found = refined(ContrastRefinement)
    _, expected = refined(Refinement)
    assert max(found.duality_gap, expected.duality_gap) <= 1e-14
    assert torch.equal(point.weight[0], -point.weight[1])
    torch.testing.assert_close(found.objective, expected.objective, rtol=1e-12, atol=1e-14)
    exact = point.weight @ features.double().T
    torch.testing.assert_close(point.logits.double(), exact, rtol=1e-5, atol=1e-5)


def test_the_gap_is_that_of_two_rows(data):
    features, labels = data
    points = SubsampledNewton(SoftmaxRegression(features, labels, 2)).solve(
        1e-3, tol=1e-3, max_passes=9
    )
    # One more look at a point that is solved already takes no step.
    again = ContrastNewton(SoftmaxRegression(features, labels, 2)).solve(
        1e-3, tol=1.0, max_passes=9, starts=(points.point,)
    )
    certificate = certify(features, labels, again.point.weight, again.point.bias, 1e-3)
    assert again.num_steps == 0
    assert again.duality_gap == pytest.approx(certificate.duality_gap, rel=0.05)


def test_weights_of_samples_count(data):
    features, labels = data
    weight = torch.rand(N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight[-30:] = 0  # they ride along
    problem = SoftmaxRegression(features, labels, 2, weight)
    point = ContrastNewton(problem).solve(1e-4, tol=1e-9, max_passes=300).point
    used = slice(0, N - 30)
    certificate = certify(
        *(features[used], labels[used], point.weight, point.bias, 1e-4),
        sample_weight=weight[used],
    )
    assert certificate.duality_gap <= 2e-9
    torch.testing.assert_close(
        problem.margins(point.logits.clone()), problem.margins(point.weight @ features.T)
    )


def test_a_start_worse_than_nothing_is_left(data):
    features, labels = data
    problem = SoftmaxRegression(features, labels, 2)
    wrong = ContrastNewton(SoftmaxRegression(features, 1 - labels, 2)).solve(
        1e-5, tol=1e-6, max_passes=300
    )
    found = ContrastNewton(problem).solve(1e-5, tol=1e-6, max_passes=300, starts=(wrong.point,))
    assert found.status is Status.CONVERGED
    assert found.objective < math.log(2)


def test_more_classes_are_solved_as_they_are(data):
    features, labels = data
    assert isinstance(newton(SoftmaxRegression(features, labels, 2)), ContrastNewton)
    assert isinstance(newton(SoftmaxRegression(features, labels, 3)), SubsampledNewton)
