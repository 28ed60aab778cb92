"""Refinement: steps of Newton's method that rounding does not stop."""

import pytest
import torch

from linprobe.core.certificate import certify
from linprobe.core.features import DenseFeatures, Standardisation, as_features
from linprobe.core.problem import SoftmaxRegression
from linprobe.core.row_space import find_row_space
from linprobe.core.solvers.base import NewtonOptions
from linprobe.core.solvers.newton import SubsampledNewton
from linprobe.core.solvers.refinement import Refinement

L2 = 1e-7


def rows(num_rows: int, num_features: int, rank: int | None = None):
    """Standardised float32 features of a falling spectrum, and labels of three classes."""
    generator = torch.Generator().manual_seed(1)
    inside = torch.randn(num_rows, rank or num_features, generator=generator)
    inside *= torch.arange(1, inside.shape[1] + 1) ** -1.0
    labels = (inside[:, :3] + torch.randn(num_rows, 3, generator=generator)).argmax(1)
    features = inside
    if rank:
        features = inside @ torch.randn(rank, num_features, generator=generator)
    Standardisation.fit_(features)
    return features, labels


def steps(features, labels, num_steps, weight=None, space=None):
    """Gaps and passes of each step from a solution to a gap of 1e-5, and the last point."""
    solved = space.coordinates if space else as_features(features)
    problem = SoftmaxRegression(solved, labels, 3, weight)
    point = SubsampledNewton(problem).solve(L2, tol=1e-5, max_passes=100).point
    if space:
        point = type(point)(space.lift(point.weight), point.bias, point.logits)
    refinement = Refinement(problem, L2, NewtonOptions(), space)

    def check():
        return certify(features, labels, point.weight, point.bias, L2, sample_weight=weight)

    gaps, passes = [check().duality_gap], []
    for _ in range(num_steps):
        here = check()
        point, taken = refinement.step(point, here.gradient, here.best_bias, 0.0)
        gaps.append(check().duality_gap)
        passes.append(taken)
    return gaps, passes, point


@pytest.mark.parametrize("num_features", [20, 300])  # both models of the Hessian
def test_steps_in_float32_go_past_its_rounding(num_features):
    features, labels = rows(2000, num_features)
    gaps, passes, point = steps(features, labels, 3)
    assert 1e-9 < gaps[0] <= 1e-5
    assert gaps[3] < 1e-15
    assert point.weight.dtype == torch.float64
    assert sum(passes) < 40
    # The logits are kept along with the weight.
    problem = SoftmaxRegression(features, labels, 3)
    found = problem.margins(point.logits.clone())
    torch.testing.assert_close(found, problem.logits(point.weight), rtol=1e-4, atol=1e-3)
    assert abs(float(point.bias.sum())) < 1e-12


@pytest.mark.parametrize("num_features", [20, 300])
def test_without_room_for_logits_of_all_directions_there_are_no_more_reads(
    num_features, monkeypatch
):
    features, labels = rows(2000, num_features)
    features = features.double()  # in float32 gaps of 1e-12 depend on the order of sums
    found = steps(DenseFeatures(features, room=1e9), labels, 2)
    monkeypatch.setattr("linprobe.core.solvers.refinement.isinf", lambda room: True)
    gaps, passes, _ = steps(DenseFeatures(features, room=1e9), labels, 2)
    assert found[1] == passes
    torch.testing.assert_close(torch.tensor(found[0]), torch.tensor(gaps), rtol=0.1, atol=1e-13)


def test_the_solver_alone_ends_where_float32_does():
    features, labels = rows(2000, 20)
    solver = SubsampledNewton(SoftmaxRegression(features, labels, 3))
    point = solver.solve(L2, tol=1e-15, max_passes=100).point
    assert certify(features, labels, point.weight, point.bias, L2).duality_gap > 1e-12


def test_weighted_samples():
    features, labels = rows(2000, 20)
    weight = torch.rand(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert steps(features, labels, 3, weight)[0][3] < 1e-15


def test_a_row_space_leaves_nothing_outside_it(monkeypatch):
    monkeypatch.setattr("linprobe.core.row_space.MAX_RANK", 64)
    monkeypatch.setattr("linprobe.core.row_space.MAX_ROWS", 64)
    features, labels = rows(600, 200, rank=12)
    space = find_row_space(DenseFeatures(features), torch.Generator())
    assert space.coordinates.num_features == 12
    assert steps(features, labels, 3, space=space)[0][3] < 1e-15


def test_a_hessian_that_cannot_be_computed_leaves_the_point(monkeypatch):
    features, labels = rows(300, 5)
    problem = SoftmaxRegression(features, labels, 3)
    point = SubsampledNewton(problem).solve(1e-3, tol=1e-3, max_passes=50).point
    here = certify(features, labels, point.weight, point.bias, 1e-3)
    refinement = Refinement(problem, 1e-3, NewtonOptions())

    def fails(*_):
        raise torch.linalg.LinAlgError

    monkeypatch.setattr(refinement._model, "begin", fails)
    found, passes = refinement.step(point, here.gradient, here.best_bias, 0.0)
    assert torch.equal(found.weight, point.weight)
    assert passes == 0
