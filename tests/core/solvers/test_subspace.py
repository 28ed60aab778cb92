"""Minima over a few directions and the bias."""

import pytest
import torch

from linprobe.core import bias_system
from linprobe.core.problem import SoftmaxRegression
from linprobe.core.solvers.base import Point
from linprobe.core.solvers.subspace import Direction, balance, minimise_in_span


def one_hot(problem):
    return torch.nn.functional.one_hot(problem.labels, problem.num_classes).T.double()


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
    gradient = problem.residuals(best.predictions).sum(1)
    assert float(gradient.abs().max()) < 1e-7


def test_model_step_is_one_for_the_newton_direction_of_a_quadratic():
    # Two classes far from any decision: P is nearly quadratic in a short direction.
    features = torch.randn(50, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    problem = SoftmaxRegression(features, torch.arange(50) % 2, 2)
    zero = torch.zeros(2, 1, dtype=torch.float64)
    base = Point(zero, zero[:, 0], problem.logits(zero))
    start = minimise_in_span(problem, 10.0, base, accuracy=1e-14)
    gradient = problem.backproject(problem.residuals(start.predictions))
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
        monkeypatch.setattr(bias_system, "MOST_FORMED", most)
        problem = SoftmaxRegression(features, torch.arange(400) % 100, 100)
        found.append(minimise_in_span(problem, 1e-3, base, direction, accuracy=1e-14))
    assert found[0].objective == pytest.approx(found[1].objective, abs=1e-13)
    torch.testing.assert_close(found[0].point.bias, found[1].point.bias)


def at_best_bias(case, l2, seed):
    """A problem, a random weight, and the best point of weight zero."""
    problem = SoftmaxRegression(case.features, case.labels, case.num_classes)
    shape = (case.num_classes, case.features.shape[1])
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    zero = torch.zeros_like(weight)
    base = Point(zero, zero.new_zeros(case.num_classes), problem.logits(zero))
    return problem, weight, minimise_in_span(problem, l2, base, accuracy=1e-14)


def test_the_bias_of_a_direction_changes_no_minimum_and_leaves_only_its_own_curvature(case):
    problem, weight, start = at_best_bias(case, 1e-3, 5)
    weight -= weight.mean(0)
    plain = Direction(weight, problem.logits(weight))
    led = plain.with_best_bias(problem, start.predictions)
    curved = led.logits - (start.predictions * led.logits).sum(0)
    shared = (problem.residuals(start.predictions) + one_hot(problem) * problem.sample_weight) * (
        curved
    )
    assert float(shared.sum(1).abs().max()) < 1e-12
    found = [
        minimise_in_span(problem, 1e-3, start.point, [d], accuracy=1e-14) for d in (plain, led)
    ]
    assert found[0].objective == pytest.approx(found[1].objective, abs=1e-12)
    torch.testing.assert_close(found[0].point.weight, found[1].point.weight, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(found[0].point.bias, found[1].point.bias, rtol=1e-5, atol=1e-7)
    logits = problem.margins(found[1].point.weight @ case.features.T)
    torch.testing.assert_close(found[1].point.logits, logits)


def test_what_is_equal_for_all_classes_is_taken_out_of_a_direction(case):
    problem, weight, start = at_best_bias(case, 1e-3, 5)
    equal = torch.ones_like(weight[:, :1]) * torch.arange(1.0, 1 + weight.shape[1])
    p = start.predictions
    found, same = (
        Direction(w, problem.logits(w)).with_best_bias(problem, p) for w in (weight + equal, weight)
    )
    torch.testing.assert_close(found.weight, same.weight)
    torch.testing.assert_close(found.logits, same.logits)


def test_a_share_of_the_decrement_is_left(case):
    problem, weight, start = at_best_bias(case, 1e-3, 6)
    direction = [Direction(weight, problem.logits(weight))]
    best, loose = (
        minimise_in_span(problem, 1e-3, start.point, direction, accuracy=0.0, share=share)
        for share in (0.0, 0.1)
    )
    assert loose.objective - best.objective <= 0.2 * (start.objective - best.objective) + 1e-12


def test_balanced_residuals_sum_to_zero_and_cost_little(case):
    problem, _, start = at_best_bias(case, 1e-4, 7)
    off = 1e-2 * torch.arange(problem.num_classes, dtype=torch.float64)
    p = (start.point.logits + (start.point.bias + off)[:, None]).softmax(0)
    found = balance(problem, p)
    residuals, step, cost = found.residuals, found.bias_step, found.cost
    assert float(problem.residuals(p).sum(1).abs().max()) > 1e-5
    assert float(residuals.sum(1).abs().max()) < 1e-12
    moved = residuals / problem.sample_weight + one_hot(problem)
    assert float(moved.min()) > 0
    torch.testing.assert_close(moved.sum(0), torch.ones_like(moved[0]))
    divergence = float(problem.sample_weight @ (moved * (moved / p).log()).sum(0))
    assert 0 < divergence <= cost < 1e-3
    torch.testing.assert_close(step - step.mean(), off.mean() - off, rtol=0.05, atol=1e-4)
