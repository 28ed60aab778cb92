"""Equations of the bias: formed of few classes, multiplied of many; the same solutions."""

import pytest
import torch

from linprobe.core.bias_system import (
    FormedBiasSystem,
    MultipliedBiasSystem,
    bias_system,
    solve_psd,
)
from linprobe.core.losses import Softmax, SquaredError
from linprobe.core.parts import split
from linprobe.core.sums import LocalSums


def unequal(num_classes=80, n=600):
    """Predictions of classes whose sizes differ a hundredfold, some of them sure."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(num_classes, n, generator=generator, dtype=torch.float64)
    logits -= torch.linspace(0, 5, num_classes, dtype=torch.float64)[:, None]
    weight = torch.rand(n, generator=generator, dtype=torch.float64)
    return logits.softmax(0), weight / weight.sum()


def formed(predictions, weight):
    weighted = predictions * weight
    return torch.diag(weighted.sum(1)) - weighted @ predictions.T


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_solve_what_the_matrix_does(dtype):
    predictions, weight = unequal()
    hessian = formed(predictions, weight)
    sought = torch.randn(3, 80, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    right = sought @ hessian
    system = MultipliedBiasSystem(predictions.to(dtype), weight.to(dtype), LocalSums())
    found = system.solve(right)
    exact = FormedBiasSystem(hessian).solve(right)
    for solution in (found, exact):
        assert float((solution @ hessian - right).norm() / right.norm()) < 1e-3
    differ = found - exact
    differ -= differ.mean(1, keepdim=True)  # equal biases change nothing
    assert float(differ.norm() / sought.norm()) < 1e-2


def test_a_row_of_zeros_is_solved_by_zero_and_without_products(monkeypatch):
    predictions, weight = unequal()
    system = MultipliedBiasSystem(predictions, weight, LocalSums())
    monkeypatch.setattr(system, "_product", None)
    assert not system.solve(weight.new_zeros(2, 80)).any()


def test_the_kind_follows_the_classes_and_the_loss():
    predictions, weight = unequal()
    labels = torch.arange(600) % 80
    few, many, squared = (
        bias_system(loss, split(loss, weight), predictions[: loss.num_outputs], weight, LocalSums())
        for loss in (Softmax(labels % 10, 10), Softmax(labels, 80), SquaredError(predictions))
    )
    assert isinstance(few, FormedBiasSystem) and isinstance(many, MultipliedBiasSystem)
    assert isinstance(squared, FormedBiasSystem)
    torch.testing.assert_close(squared.hessian, torch.eye(80, dtype=torch.float64))


def test_what_is_not_finite_has_no_solution():
    matrix = torch.full((2, 2), float("nan"), dtype=torch.float64)
    assert not solve_psd(matrix, torch.ones(2, 1, dtype=torch.float64)).any()
    assert solve_psd(matrix[:0, :0], matrix[:0, :1]).shape == (0, 1)
