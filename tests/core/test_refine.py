"""Going on from a certified solution: its ends, and what helps where Newton's method can't."""

from dataclasses import replace
from functools import partial
from math import inf

import torch

from linprobe.core.certificate import certify
from linprobe.core.features import DenseFeatures, Standardisation
from linprobe.core.problem import SoftmaxRegression
from linprobe.core.refine import refine_certified
from linprobe.core.solve import Attempt, solve_certified
from linprobe.core.solvers.base import NewtonOptions, Point
from linprobe.core.solvers.refinement import Refinement
from tests.support.reference import reference_optimum

L2 = 1e-6


class Setting:
    """A problem whose classes are nearly separable, so that its optimum is far from zero."""

    def __init__(self):
        generator = torch.Generator().manual_seed(2)
        self.features = torch.randn(400, 6, generator=generator)
        self.labels = self.features[:, :3].argmax(1)
        self.labels[:3] = torch.arange(3)
        Standardisation.fit_(self.features)
        self.check = partial(self._certify, self.features, self.labels)
        self.problem = SoftmaxRegression(self.features, self.labels, 3)
        self.asked: list[float] = []

    @staticmethod
    def _certify(features, labels, weight, bias):
        return certify(features, labels, weight, bias, L2)

    def solve(self, start, tol, max_passes):
        self.asked.append(tol)
        return solve_certified(
            [Attempt(lambda: DenseFeatures(self.features), tol)],
            lambda x: SoftmaxRegression(x, self.labels, 3),
            self.check,
            L2,
            tol=tol,
            max_passes=max_passes,
            start=start,
        )

    def refine(self, solution, goal, **options):
        refinement = Refinement(self.problem, L2, NewtonOptions())
        options = {"least": 1e-9, "max_passes": 200.0, **options}
        return refine_certified(solution, refinement, self.check, self.solve, goal=goal, **options)


def test_goes_to_the_optimum_in_float64():
    setting = Setting()
    found = setting.refine(setting.solve(None, 1e-4, 100), 1e-17)
    assert found.certificate.duality_gap <= 1e-16
    again = setting.check(found.point.weight, found.point.bias)
    assert again.duality_gap == found.certificate.duality_gap
    _, weight, bias = reference_optimum(setting.features.double(), setting.labels, 3, L2)
    torch.testing.assert_close(found.point.weight, torch.from_numpy(weight), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.point.bias, torch.from_numpy(bias), rtol=1e-3, atol=1e-3)


def test_the_solver_comes_nearer_where_newtons_method_does_not(monkeypatch):
    setting = Setting()
    loose = setting.solve(None, 1e-2, 100)
    setting.asked.clear()
    real = Refinement.step

    def step(self, point, gradient, best_bias, goal):
        far = float(gradient.square().sum()) / (2 * L2) > 1e-6
        return (point, 1.0) if far else real(self, point, gradient, best_bias, goal)

    monkeypatch.setattr(Refinement, "step", step)
    found = setting.refine(loose, 1e-14)
    assert setting.asked == sorted(setting.asked, reverse=True)
    assert 1 <= len(setting.asked) <= 2
    assert found.certificate.duality_gap <= 1e-14


def test_a_step_that_is_too_long_is_halved(monkeypatch):
    setting = Setting()
    start = setting.solve(None, 1e-4, 100)
    setting.asked.clear()
    real = Refinement.step

    def step(self, point, gradient, best_bias, goal):
        found, passes = real(self, point, gradient, best_bias, goal)
        weight = point.weight + 4 * (found.weight - point.weight)
        logits = point.logits + 4 * (found.logits - point.logits)
        return Point(weight, best_bias + 4 * (found.bias - best_bias), logits), passes

    monkeypatch.setattr(Refinement, "step", step)
    found = setting.refine(start, 1e-10, least=inf)
    assert found.certificate.duality_gap <= 1e-10
    assert setting.asked == []


def test_steps_that_lower_p_alone_are_taken():
    setting = Setting()
    start = setting.solve(None, 1e-4, 100)
    real, first = setting.check, []

    def check(weight, bias):
        found = real(weight, bias)
        first.append(found)
        return replace(found, duality_gap=1.0) if len(first) == 1 else found

    setting.check = check
    found = setting.refine(start, 1e-12, least=inf)
    assert found.certificate.duality_gap <= 1e-12
    # P counts as falling only by more than its rounding, and the best point is returned.
    setting.check = lambda weight, bias: replace(real(weight, bias), duality_gap=1.0)
    stuck = setting.refine(found, 0.0, least=inf)
    assert stuck.certificate is found.certificate
    assert stuck.num_passes > found.num_passes


def test_ends_at_the_goal_at_the_passes_and_where_nothing_helps(monkeypatch):
    setting = Setting()
    start = setting.solve(None, 1e-4, 100)
    assert setting.refine(start, 1e-3) is start
    assert setting.refine(start, 0.0, max_passes=start.num_passes) is start
    near = setting.refine(start, 1e-9)
    assert near.num_passes > start.num_passes
    monkeypatch.setattr(Refinement, "step", lambda self, point, *_: (point, 1.0))
    setting.asked.clear()
    stuck = setting.refine(near, 0.0, least=1.0)
    assert setting.asked == []
    assert stuck.num_passes == near.num_passes + 1
    assert stuck.certificate is near.certificate


def test_it_ends_at_a_weak_step_where_more_precision_is_at_hand(monkeypatch):
    setting = Setting()
    loose = setting.solve(None, 1e-4, 100)
    steps = []
    real = Refinement.step

    def step(self, point, gradient, best_bias, goal):
        to, passes = real(self, point, gradient, best_bias, goal)
        steps.append(passes)
        share = 1.0 if len(steps) == 1 else 0.1  # of the step, the second time
        weight = point.weight + share * (to.weight - point.weight)
        return replace(to, weight=weight, logits=(weight.float() @ setting.features.T)), passes

    monkeypatch.setattr(Refinement, "step", step)
    found = setting.refine(loose, 1e-17, demanding=True)
    assert len(steps) == 2 and 1e-17 < found.certificate.duality_gap < 1e-2
    steps.clear()
    setting.refine(loose, 1e-17)
    assert len(steps) > 2
