"""Ridge regression: the loss seam, the exact solver, and the certificate of a squared error."""

import pytest
import torch
from sklearn.linear_model import Ridge as Reference

from linprobe.core.certificate import certify
from linprobe.core.losses import SquaredError
from linprobe.core.problem import LinearProblem, SoftmaxRegression
from linprobe.core.solvers.base import Status
from linprobe.core.solvers.newton import SubsampledNewton
from linprobe.core.solvers.ridge import Ridge
from linprobe.runtime.errors import LinprobeError

L2 = 1e-3


def rows(n, d, k=2, seed=0):
    """Features (n, d), targets (n, k) of a planted weight with noise, and sample weights."""
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=source, dtype=torch.float64)
    planted = torch.randn(d, k, generator=source, dtype=torch.float64)
    noise = torch.randn(n, k, generator=source, dtype=torch.float64)
    return x, x @ planted + 3 + noise, torch.rand(n, generator=source, dtype=torch.float64)


def optimum(x, t, s, l2=L2, solver=Ridge):
    problem = LinearProblem(x, SquaredError(t.T.contiguous()), s)
    return problem, solver(problem).solve(l2, tol=1e-12, max_passes=200)


SHAPES = pytest.mark.parametrize(("n", "d", "k"), [(100, 7, 2), (20, 60, 3), (50, 1, 1)])


@SHAPES
def test_the_solver_agrees_with_scikit_learn(n, d, k):
    x, t, s = rows(n, d, k)
    _, solution = optimum(x, t, s)
    reference = Reference(alpha=L2 * float(s.sum()), tol=1e-12)
    reference.fit(x.numpy(), t.numpy(), sample_weight=s.numpy())
    weight = torch.from_numpy(reference.coef_).view(k, d)
    torch.testing.assert_close(solution.point.weight, weight, rtol=1e-7, atol=1e-9)
    bias = torch.as_tensor(reference.intercept_).view(k)
    torch.testing.assert_close(solution.point.bias, bias, rtol=1e-7, atol=1e-9)
    assert solution.status is Status.CONVERGED


def test_a_planted_optimum_is_found():
    """Targets made so that the gradient vanishes at a weight that is known."""
    x, _, _ = rows(80, 5)
    x -= x.mean(0)
    weight = torch.arange(10, dtype=torch.float64).view(2, 5)
    bias = torch.tensor([1.0, -2.0], dtype=torch.float64)
    # Residuals r of mean zero with r^T x / n = -l2 W.
    residuals = (-L2 * len(x) * weight @ torch.linalg.inv(x.T @ x) @ x.T).T
    t = x @ weight.T + bias - residuals
    _, solution = optimum(x, t, torch.ones(80))
    torch.testing.assert_close(solution.point.weight, weight)
    torch.testing.assert_close(solution.point.bias, bias)
    certificate = certify(x, t, weight, bias, L2)
    assert certificate.duality_gap < 1e-20 and certificate.bias_residual < 1e-13


@SHAPES
def test_the_certificate_bounds_the_distance_from_the_optimum(n, d, k):
    x, t, s = rows(n, d, k)
    _, solution = optimum(x, t, s)
    point = solution.point
    best = certify(x, t, point.weight, point.bias, L2, sample_weight=s)
    assert best.objective == pytest.approx(solution.objective, rel=1e-12)
    assert best.duality_gap < 1e-15 * max(1.0, best.objective)
    assert best.error_rate != best.error_rate, "no prediction of a real number is wrong or right"
    source = torch.Generator().manual_seed(1)
    for size in (1e-4, 1e-2, 1.0, 100.0):
        weight = point.weight + size * torch.randn(k, d, generator=source, dtype=torch.float64)
        bias = point.bias + size * torch.randn(k, generator=source, dtype=torch.float64)
        away = certify(x, t, weight, bias, L2, sample_weight=s)
        distance = away.objective - best.objective
        assert 0 < distance <= away.duality_gap * (1 + 1e-9)


def test_the_certificate_notices_a_wrong_bias_penalty_or_target():
    """Each part of the problem is seen: with one of them changed, the optimum is none."""
    x, t, s = rows(100, 7)
    _, solution = optimum(x, t, s)
    weight, bias = solution.point.weight, solution.point.bias
    shifted = certify(x, t, weight, bias + 0.1, L2, sample_weight=s)
    assert shifted.duality_gap == pytest.approx(0.5 * 2 * 0.1**2, rel=1e-9)
    assert shifted.bias_residual == pytest.approx(0.1, rel=1e-9)
    others = [
        certify(x, t, weight, bias, 2 * L2, sample_weight=s),
        certify(x, t, weight, bias, L2),
        certify(x, t.flip(0), weight, bias, L2, sample_weight=s),
        certify(x, t, torch.zeros_like(weight), bias, L2, sample_weight=s),
    ]
    assert all(other.duality_gap > 1e-5 for other in others)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "d", "k"), [(400, 8, 3), (500, 300, 2), (300, 20, 70)])
def test_the_newton_solver_minimises_a_squared_error_too(n, d, k, dtype):
    """The seam is real: nothing in the solver knows the loss."""
    x, t, s = rows(n, d, k)
    x = x / d**0.5
    t = (t - 3) / 10 + 0.1
    problem = LinearProblem(x.to(dtype), SquaredError(t.T.contiguous().to(dtype)), s)
    solution = SubsampledNewton(problem).solve(L2, tol=1e-5, max_passes=200)
    assert solution.status is Status.CONVERGED
    certificate = certify(x, t, solution.point.weight, solution.point.bias, L2, sample_weight=s)
    _, best = optimum(x, t, s)
    assert certificate.duality_gap <= 1e-5
    assert -1e-12 <= certificate.objective - best.objective <= certificate.duality_gap + 1e-7


def test_the_ridge_solver_refuses_another_loss():
    labels = torch.arange(6) % 2
    with pytest.raises(LinprobeError, match="given Softmax; expected SquaredError"):
        Ridge(SoftmaxRegression(torch.zeros(6, 2), labels, 2))
