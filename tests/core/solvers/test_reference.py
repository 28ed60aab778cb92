"""The package's own reference against scipy's, and against the solver that it checks."""

import pytest
import torch

from linprobe import LinprobeError, certify
from linprobe.core.problem import SoftmaxRegression
from linprobe.core.solvers.base import Point, Solver, Status
from linprobe.core.solvers.newton import SubsampledNewton
from linprobe.core.solvers.reference import ReferenceNewton
from tests.support.cases import make_case
from tests.support.reference import reference_optimum


def problem_of(case, dtype=torch.float64):
    return SoftmaxRegression(case.features.to(dtype), case.labels, case.num_classes)


@pytest.mark.parametrize("l2", [1e-1, 1e-4, 1e-6])
def test_reaches_scipys_optimum(case, l2):
    solver: Solver = ReferenceNewton(problem_of(case))
    solution = solver.solve(l2, tol=1e-11, max_passes=1000)
    assert solution.status is Status.CONVERGED
    value, _, _ = reference_optimum(case.features, case.labels, case.num_classes, l2)
    assert solution.objective == pytest.approx(value, abs=1e-10)
    point = solution.point
    certificate = certify(case.features, case.labels, point.weight, point.bias, l2)
    assert certificate.duality_gap <= 1e-10
    assert certificate.duality_gap == pytest.approx(solution.duality_gap, abs=1e-11)
    assert certificate.objective == pytest.approx(solution.objective, abs=1e-12)
    logits = point.weight @ case.features.T
    torch.testing.assert_close(point.logits - point.logits[0], logits - logits[0])
    assert abs(float(point.bias.sum())) < 1e-9


def test_agrees_with_the_subsampled_solver_on_a_path(case):
    reference, solver = ReferenceNewton(problem_of(case)), SubsampledNewton(problem_of(case))
    starts: list[tuple[Point, ...]] = [(), ()]
    for l2 in (1e-1, 1e-3, 1e-5):
        found = [
            one.solve(l2, tol=1e-8, max_passes=1000, starts=begun)
            for one, begun in zip((reference, solver), starts, strict=True)
        ]
        starts = [(solution.point,) for solution in found]
        assert found[0].objective == pytest.approx(found[1].objective, abs=1e-8)


def test_converges_where_float32_ends(case):
    solution = ReferenceNewton(problem_of(case)).solve(1e-9, tol=1e-6, max_passes=1000)
    assert solution.status is Status.CONVERGED
    point = solution.point
    certificate = certify(case.features, case.labels, point.weight, point.bias, 1e-9)
    assert certificate.duality_gap <= 2e-6


def test_float32_features_are_solved_in_float64(case):
    problem = problem_of(case, torch.float32)
    point = ReferenceNewton(problem).solve(1e-4, tol=1e-10, max_passes=1000).point
    assert point.weight.dtype == torch.float64 and point.logits.dtype == torch.float32
    certificate = certify(problem.features, case.labels, point.weight, point.bias, 1e-4)
    assert certificate.duality_gap <= 1e-9


def test_weighted_samples_count_as_duplicates():
    case = make_case("weighted", 60, 4, 3)
    counts = torch.arange(60) % 3
    repeat = torch.repeat_interleave(torch.arange(60), counts)
    weighted = SoftmaxRegression(case.features, case.labels, 3, counts)
    repeated = SoftmaxRegression(case.features[repeat], case.labels[repeat], 3)
    points = [
        ReferenceNewton(problem).solve(1e-3, tol=1e-14, max_passes=100).point
        for problem in (weighted, repeated)
    ]
    torch.testing.assert_close(points[0].weight, points[1].weight, atol=1e-6, rtol=1e-6)


def test_starts_from_the_best_point_that_it_is_given(case):
    solver = ReferenceNewton(problem_of(case))
    first = solver.solve(1e-4, tol=1e-10, max_passes=1000)
    again = solver.solve(1e-4, tol=1e-10, max_passes=1000, starts=(first.point,))
    assert again.num_steps == 0 and first.num_steps > 1
    bad = Point(first.point.weight * 1e6, first.point.bias, first.point.logits)
    ignored = solver.solve(1e-4, tol=1e-10, max_passes=1000, starts=(bad,))
    assert ignored.num_steps == first.num_steps


def test_pass_budget_and_precision_limit_are_said(case):
    solver = ReferenceNewton(problem_of(case))
    short = solver.solve(1e-6, tol=1e-12, max_passes=1)
    assert short.status is Status.MAX_PASSES_REACHED and short.num_passes <= 1
    endless = solver.solve(1e-4, tol=0.0, max_passes=10_000)
    assert endless.status is Status.PRECISION_LIMIT


def test_problems_that_are_too_large_are_refused():
    problem = SoftmaxRegression(torch.zeros(2, 3000), torch.tensor([0, 1]), 2)
    with pytest.raises(LinprobeError, match=r"6,002 variables.*use SubsampledNewton"):
        ReferenceNewton(problem)
