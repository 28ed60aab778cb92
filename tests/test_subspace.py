"""Minima over a few directions and the bias."""

import pytest
import torch

from linprobe.problem import SoftmaxRegression
from linprobe.solvers import subspace
from linprobe.solvers.base import Point
from linprobe.solvers.subspace import Direction, minimise_in_span


def test_span_minimum_beats_every_neighbour(case):
    problem = SoftmaxRegression(case.features, case.labels, case.num_classes)
    generator = torch.Generator().manual_seed(5)
    shape = (2, case.num_classes, case.features.shape[1])
    weights = torch.randn(shape, generator=generator, dtype=torch.float64)
    directions = [Direction(w, problem.logits(w)) for w in weights]
    zero = torch.zeros_like(weights[0])
    base = Point(zero, zero.new_zeros(case.num_classes), problem.logits(zero))
    best = minimise_in_span(problem, 1e-3, base, directions, accuracy=1e-14)
    for direction in directions:
        for t in (-1e-3, 1e-3):
            moved = Point(
                best.point.weight + t * direction.weight,
                best.point.bias,
                best.point.logits + t * direction.logits,
            )
            other = minimise_in_span(problem, 1e-3, moved, accuracy=1e-14)
            assert other.objective > best.objective
    gradient = problem.residuals(best.probabilities).sum(1)
    assert float(gradient.abs().max()) < 1e-7


def test_model_step_is_one_for_the_newton_direction_of_a_quadratic():
    # Two classes far from any decision: P is nearly quadratic in a short direction.
    features = torch.randn(50, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    problem = SoftmaxRegression(features, torch.arange(50) % 2, 2)
    zero = torch.zeros(2, 1, dtype=torch.float64)
    base = Point(zero, zero[:, 0], problem.logits(zero))
    start = minimise_in_span(problem, 10.0, base, accuracy=1e-14)
    gradient = problem.backproject(problem.residuals(start.probabilities))
    for length in (1.0, 2.0):
        weight = -length * gradient / 10.0  # l2 = 10 outweighs the cross-entropy's curvature
        found = minimise_in_span(
            problem, 10.0, start.point, [Direction(weight, problem.logits(weight))], accuracy=1e-14
        )
        assert found.model_step == pytest.approx(1 / length, rel=0.1)


def test_many_classes_are_solved_as_few_are(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(400, 5, generator=generator, dtype=torch.float64)
    problem = SoftmaxRegression(features, torch.arange(400) % 100, 100)
    weight = torch.randn(100, 5, generator=generator, dtype=torch.float64)
    base = Point(weight, weight.new_zeros(100), problem.logits(weight))
    direction = [Direction(weight, base.logits)]
    found = []
    for most in (64, 1000):
        monkeypatch.setattr(subspace, "_FEW_CLASSES", most)
        found.append(minimise_in_span(problem, 1e-3, base, direction, accuracy=1e-14))
    assert found[0].objective == pytest.approx(found[1].objective, abs=1e-13)
    torch.testing.assert_close(found[0].point.bias, found[1].point.bias)
