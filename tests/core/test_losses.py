"""What a loss says of logits, against automatic differentiation."""

import pytest
import torch

from linprobe.core.losses import Contrast, Softmax, SquaredError
from linprobe.core.problem import LinearProblem, SoftmaxRegression
from linprobe.core.sums import LocalSums

K, N = 4, 30


def softmax(z):
    labels = torch.arange(N) % K
    return Softmax(labels, K), torch.nn.functional.cross_entropy(z.T, labels, reduction="none")


def squared(z):
    targets = torch.linspace(-1, 2, K * N, dtype=torch.float64).view(K, N)
    return SquaredError(targets), (z - targets).square().sum(0) / 2


def contrast(z):
    labels = torch.arange(N) % 2
    both = torch.stack([torch.zeros(N, dtype=torch.float64), z[0]], dim=1)
    return Contrast(labels), torch.nn.functional.cross_entropy(both, labels, reduction="none")


LOSSES = pytest.mark.parametrize(("make", "k"), [(softmax, K), (squared, K), (contrast, 1)])


def logits(k, seed=0):
    source = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(k, N, generator=source, dtype=torch.float64)


@LOSSES
def test_values_residuals_and_curvature_are_derivatives(make, k):
    z, u = logits(k), logits(k, 1)
    loss, expected = make(z)
    values, predictions = loss.evaluate(loss.margins(z.clone()))
    torch.testing.assert_close(values, expected)

    def total(z):
        return make(z)[1].sum()

    gradient = torch.autograd.functional.jacobian(total, z)
    residuals = loss.residuals(predictions)
    torch.testing.assert_close(residuals, gradient)
    product = torch.autograd.functional.hvp(total, z, u)[1]
    spread = loss.spread(predictions)
    torch.testing.assert_close(spread * loss.centred(predictions, u), product)
    slope, middle = loss.along(predictions, loss.margins(u.clone()))
    torch.testing.assert_close(slope, (residuals * u).sum(0))
    torch.testing.assert_close((spread * middle * middle).sum(), (u * product).sum())


@LOSSES
def test_bias_hessian_importance_and_moves_are_those_of_the_curvature(make, k):
    loss, _ = make(logits(k))
    _, predictions = loss.evaluate(loss.margins(logits(k)))
    s = torch.rand(N, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def curved(step):
        flat = step[:, None].repeat(1, N)
        return loss.spread(predictions) * loss.centred(predictions, flat)

    columns = [curved(unit) for unit in torch.eye(k, dtype=torch.float64)]
    hessian = loss.bias_hessian(predictions, loss.spread(predictions) * s)
    torch.testing.assert_close(hessian, torch.stack([column @ s for column in columns]))
    trace = torch.stack([column[k] for k, column in enumerate(columns)]).sum(0)
    torch.testing.assert_close(loss.importance(predictions), trace)
    step = torch.arange(1, k + 1, dtype=torch.float64)
    torch.testing.assert_close(loss.moved(predictions, step), predictions + curved(step))
    torch.testing.assert_close(loss.margins(step[:, None].repeat(1, N)), loss.bias_margins(step))


@LOSSES
def test_the_target_mass_is_what_residuals_lack(make, k):
    loss, _ = make(logits(k))
    _, predictions = loss.evaluate(loss.margins(logits(k)))
    s = torch.rand(N, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = (predictions - loss.residuals(predictions)) @ s
    torch.testing.assert_close(loss.target_mass(s), expected)


@LOSSES
def test_the_constant_bias_is_the_best_of_weight_zero_or_none(make, k):
    loss, _ = make(logits(k))
    s = torch.rand(N, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    mass = loss.target_mass(s / s.sum())
    bias = loss.constant_bias(mass)
    _, predictions = loss.evaluate(loss.bias_margins(bias))
    if isinstance(loss, Contrast):
        assert not bias.any()
    else:
        torch.testing.assert_close(predictions @ (s / s.sum()), mass)


def test_a_class_that_does_not_occur_has_a_finite_bias():
    bias = Softmax(torch.tensor([0, 0, 1]), 3).constant_bias(torch.tensor([0.7, 0.3, 0.0]))
    assert bias.isfinite().all() and float(bias.sum()) == pytest.approx(0, abs=1e-5)


class Halves(LocalSums):
    """Sums of two processes that have the same rows."""

    def total(self, local):
        return 2 * local


def test_every_sum_over_samples_goes_through_the_seam():
    """Two processes with the same rows have the problem of one: the weights halve."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(N, 3, generator=source, dtype=torch.float64)
    labels = torch.arange(N) % K
    one, two = (SoftmaxRegression(x, labels, K, None, sums) for sums in (None, Halves()))
    weight = torch.randn(K, 3, generator=source, dtype=torch.float64)
    results = []
    for problem in (one, two):
        value, p = problem.evaluate(problem.logits(weight))
        gradient = problem.backproject(problem.residuals(p))
        results.append((value, gradient, problem.bias_system(p).hessian, problem.mean(p)))
        assert float(problem.target_mass.sum()) == pytest.approx(1)
    torch.testing.assert_close(*results)
    torch.testing.assert_close(2 * two.sample_weight, one.sample_weight)


def test_a_problem_takes_any_loss():
    loss = SquaredError(torch.zeros(K, 5, dtype=torch.float64))
    problem = LinearProblem(torch.ones(5, 2, dtype=torch.float64), loss)
    assert (problem.num_classes, problem.num_samples, problem.num_features) == (K, 5, 2)
