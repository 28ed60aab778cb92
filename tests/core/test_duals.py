"""The best bias, from far off and of saturated predictions."""

import pytest
import torch

from linprobe.core.duals import SoftmaxDual
from linprobe.core.sums import LocalSums


@pytest.mark.parametrize("num_classes", [2, 10, 80])
@pytest.mark.parametrize("scale", [0.1, 5.0, 50.0], ids=lambda scale: f"scale {scale:g}")
@pytest.mark.parametrize("offset", [0.1, 1.0, 5.0], ids=lambda offset: f"offset {offset:g}")
def test_each_class_is_predicted_as_often_as_it_occurs(num_classes, scale, offset):
    generator = torch.Generator().manual_seed(0)

    def drawn(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    n = 1500
    logits = scale * drawn(num_classes, n)
    true = (logits + offset * drawn(num_classes, 1)).softmax(0)
    labels = torch.multinomial(true.T, 1, generator=generator)[:, 0]
    s = torch.rand(n, generator=generator, dtype=torch.float64)
    s /= s.sum()
    dual = SoftmaxDual(labels, num_classes, s, LocalSums())
    bias = dual.best_bias(logits, torch.zeros(num_classes, dtype=torch.float64))
    mass = torch.zeros(num_classes, dtype=torch.float64).index_add(0, labels, s)
    assert torch.equal(bias == -torch.inf, mass == 0)
    mean = dual.mean((logits + bias[:, None]).softmax(0))
    torch.testing.assert_close(mean, mass, rtol=1e-9, atol=0)


def test_a_start_where_predictions_underflow_is_left():
    logits = torch.zeros(3, 6, dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    dual = SoftmaxDual(labels, 3, torch.full((6,), 1 / 6, dtype=torch.float64), LocalSums())
    bias = dual.best_bias(logits, torch.tensor([0.0, -2000.0, 500.0]).double())
    mean = dual.mean((logits + bias[:, None]).softmax(0))
    torch.testing.assert_close(mean, torch.tensor([3.0, 2.0, 1.0]).double() / 6)


def drawn(num_classes, n=200):
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(num_classes, n, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, num_classes, (n,), generator=generator)
    labels[:num_classes] = torch.arange(num_classes)
    return logits, labels


@pytest.mark.parametrize("num_classes", [2, 10, 70])
def test_a_class_of_hardly_any_weight_has_its_share(num_classes):
    logits, labels = drawn(num_classes)
    s = torch.where(labels == 0, 1e-7, 1.0).double()
    s /= s.sum()
    dual = SoftmaxDual(labels, num_classes, s, LocalSums())
    bias = dual.best_bias(logits, torch.zeros(num_classes, dtype=torch.float64))
    mean = dual.mean((logits + bias[:, None]).softmax(0))
    mass = torch.zeros(num_classes, dtype=torch.float64).index_add(0, labels, s)
    torch.testing.assert_close(mean, mass, rtol=1e-7, atol=0)


@pytest.mark.parametrize("start", [0.0, 100.0])
def test_samples_that_are_all_sure_keep_their_bias_finite(start):
    logits, labels = drawn(3)
    logits[labels, torch.arange(len(labels))] += 2000.0
    s = torch.full((len(labels),), 1 / len(labels), dtype=torch.float64)
    dual = SoftmaxDual(labels, 3, s, LocalSums())
    bias = dual.best_bias(logits, start * torch.arange(3.0).double())
    assert bool((bias.abs() < 1e4).all())
    mean = dual.mean((logits + bias[:, None]).softmax(0))
    torch.testing.assert_close(mean, torch.bincount(labels) / len(labels) * 1.0, check_dtype=False)
