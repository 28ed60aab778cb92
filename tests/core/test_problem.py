"""The problem's formulas against automatic differentiation, and standardisation."""

import pytest
import torch

from linprobe.core.features import Standardisation
from linprobe.core.problem import (
    SoftmaxRegression,
    weighted_sum,
)
from linprobe.runtime.errors import LinprobeError


def test_gradient_is_that_of_torch(case):
    weight = torch.randn(case.num_classes, case.features.shape[1], dtype=torch.float64)
    weight.requires_grad_(True)
    logits = case.features @ weight.T
    torch.nn.functional.cross_entropy(logits, case.labels).backward()
    problem = SoftmaxRegression(case.features, case.labels, case.num_classes)
    z = problem.logits(weight.detach())
    own = logits.detach().gather(1, case.labels[:, None])
    torch.testing.assert_close(z, (logits.detach() - own).T)
    gradient = problem.backproject(problem.residuals(z.softmax(0)))
    torch.testing.assert_close(gradient, weight.grad)
    assert problem.num_reads == 2


def test_the_bias_hessian_is_the_derivative_of_the_residuals(case):
    problem = SoftmaxRegression(case.features, case.labels, case.num_classes)
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(case.num_classes, len(case.labels), generator=generator, dtype=torch.float64)

    def slope(bias):
        return problem.residuals((z + bias[:, None]).softmax(0)).sum(1)

    expected = torch.autograd.functional.jacobian(slope, z.new_zeros(case.num_classes))
    system = problem.bias_system(z.softmax(0))
    torch.testing.assert_close(system.hessian, expected)


def test_weights_count_as_duplicates():
    features = torch.randn(5, 3, dtype=torch.float64)
    labels = torch.tensor([0, 1, 1, 0, 1])
    weights = torch.tensor([1.0, 2, 3, 1, 1])
    repeat = torch.repeat_interleave(torch.arange(5), weights.long())
    weighted = SoftmaxRegression(features, labels, 2, weights)
    repeated = SoftmaxRegression(features[repeat], labels[repeat], 2)
    w = torch.randn(2, 3, dtype=torch.float64)
    gradients = [p.backproject(p.residuals(p.logits(w).softmax(0))) for p in (weighted, repeated)]
    torch.testing.assert_close(*gradients)


def test_samples_without_weight_have_logits_but_no_influence():
    features, labels = torch.randn(6, 2, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 1, 0])
    held_out = torch.tensor([1.0, 1, 1, 1, 0, 0])
    problem = SoftmaxRegression(features, labels, 2, held_out)
    alone = SoftmaxRegression(features[:4], labels[:4], 2)
    w = torch.randn(2, 2, dtype=torch.float64)
    z = problem.logits(w)
    assert z.shape == (2, 6)
    torch.testing.assert_close(
        problem.backproject(problem.residuals(z.softmax(0))),
        alone.backproject(alone.residuals(z[:, :4].softmax(0))),
    )


def test_coordinates_change_what_is_read_and_nothing_else(case):
    problem = SoftmaxRegression(case.features, case.labels, case.num_classes)
    generator = torch.Generator().manual_seed(2)
    width = case.features.shape[1]
    transform = torch.randn(width, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(case.num_classes, width, generator=generator, dtype=torch.float64)
    seen = problem.transformed(transform, torch.float64)
    torch.testing.assert_close(seen.features.values, case.features @ transform)
    z = seen.logits(weight)
    torch.testing.assert_close(z, problem.logits(weight @ transform.T))
    residuals = problem.residuals(z.softmax(0))
    torch.testing.assert_close(
        seen.backproject(residuals), problem.backproject(residuals) @ transform
    )
    assert problem.num_reads == seen.num_reads == 5


def test_coordinates_are_rounded_once():
    """Made in float64, small columns of a difference of large ones are as exact as float32 is."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(9000, 2, generator=generator)
    features[:, 1] = features[:, 0] + 1e-4 * features[:, 1]
    transform = torch.tensor([[1.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    problem = SoftmaxRegression(features, torch.arange(9000) % 2, 2)
    exact = features.double() @ transform
    found = problem.transformed(transform, torch.float64).features.values
    assert found.dtype == torch.float32
    assert float((found - exact).abs().max() / exact[:, 1].abs().max()) < 1e-6 * 2e4
    torch.testing.assert_close(found[:, 1].double(), exact[:, 1], rtol=1e-7, atol=0)


def test_bias_margins_are_those_of_logits(case):
    problem = SoftmaxRegression(case.features, case.labels, case.num_classes)
    bias = torch.arange(case.num_classes, dtype=torch.float64)
    logits = bias[:, None].repeat(1, len(case.labels))
    added = problem.shifted(torch.zeros_like(logits), bias)
    torch.testing.assert_close(added, problem.margins(logits))


def test_mismatched_labels_are_named():
    with pytest.raises(LinprobeError, match=r"6 samples have labels of shape \(5,\)"):
        SoftmaxRegression(torch.zeros(6, 2), torch.zeros(5, dtype=torch.int64), 2)


def test_weighted_sum_does_not_drift_in_float32():
    # 50,000 equal addends of 2e-5: a float32 accumulator is off by 1e-4 and more.
    ones, s = torch.ones(1, 50_000), torch.full((50_000,), 2e-5)
    assert abs(float(weighted_sum(ones, s)) - 1) < 1e-6


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1.0, 1e10, 1e30])
def test_standardisation_works_at_any_scale(scale):
    generator = torch.Generator().manual_seed(0)
    raw = (torch.randn(1000, 7, generator=generator) + 3) * scale
    features = raw.clone()
    s = Standardisation.fit_(features)
    assert float(features.square().sum(1).mean()) == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(((raw.double() - s.mean) * s.scale).float(), features)
    weight, bias = torch.randn(3, 7, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    raw_weight, raw_bias = s.to_raw(weight, bias)
    torch.testing.assert_close(
        raw.double() @ raw_weight.T + raw_bias,
        features.double() @ weight.T + bias,
        rtol=1e-5,
        atol=1e-5,
    )


def test_constant_features_become_zero():
    features = torch.full((100, 4), 0.1)
    s = Standardisation.fit_(features)
    assert s.scale == 1 and not features.any()


def test_the_equations_of_the_bias_at_the_same_predictions_are_made_once():
    features = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    problem = SoftmaxRegression(features, torch.arange(30) % 3, 3)
    predictions = torch.full((3, 30), 1 / 3)
    first = problem.bias_system(predictions)
    assert problem.bias_system(predictions) is first
    again = problem.bias_system(predictions.clone())
    assert again is not first
    torch.testing.assert_close(again.hessian, first.hessian)


@pytest.mark.parametrize("num_classes", [3, 80])
def test_the_step_of_the_bias_is_solved_once(num_classes):
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(400, 4, generator=draw, dtype=torch.float64)
    problem = SoftmaxRegression(features, torch.arange(400) % num_classes, num_classes)
    z = torch.randn(num_classes, 400, generator=draw, dtype=torch.float64)
    _, predictions = problem.evaluate(problem.margins(z.clone()))
    gradient, step = problem.bias_step(predictions)
    assert problem.bias_step(predictions)[1] is step
    torch.testing.assert_close(gradient, problem.bias_gradient(predictions))
    torch.testing.assert_close(gradient, problem.residuals(predictions).sum(1))
    hessian = torch.diag(predictions.mean(1)) - predictions @ predictions.T / 400
    assert float((hessian @ step - gradient).norm() / gradient.norm()) < 1e-3
    other = problem.bias_step(predictions.clone())[1]
    assert other is not step
    torch.testing.assert_close(other, step)
