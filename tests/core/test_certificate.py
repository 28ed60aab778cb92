"""The certificate against an independent optimum, and attempts to fool it."""

import pytest
import torch

from linprobe.core.certificate import certify
from linprobe.core.features import Standardisation
from tests.support.cases import Case
from tests.support.reference import reference_optimum

L2S = [1e-1, 1e-3, 1e-5]


def at_optimum(case, l2):
    value, weight, bias = reference_optimum(case.features, case.labels, case.num_classes, l2)
    return value, torch.from_numpy(weight), torch.from_numpy(bias)


@pytest.mark.parametrize("l2", L2S)
def test_optimum_has_no_gap(case, l2):
    value, weight, bias = at_optimum(case, l2)
    certificate = certify(case.features, case.labels, weight, bias, l2)
    assert certificate.objective == pytest.approx(value, abs=1e-12)
    assert certificate.duality_gap < 1e-8
    assert certificate.bias_residual < 1e-7


@pytest.mark.parametrize("l2", L2S)
@pytest.mark.parametrize("size", [1e-3, 1e-1, 1.0])
def test_gap_bounds_the_true_distance_of_any_point(case, l2, size):
    value, weight, bias = at_optimum(case, l2)
    generator = torch.Generator().manual_seed(3)
    weight = weight + size * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    bias = bias + size * torch.randn(bias.shape, generator=generator, dtype=torch.float64)
    certificate = certify(case.features, case.labels, weight, bias, l2)
    assert certificate.duality_gap >= certificate.objective - value - 1e-12
    assert certificate.duality_gap > 1e-9, "a perturbed optimum must show"


def test_wrong_bias_is_caught(case):
    l2 = 1e-3
    value, weight, bias = at_optimum(case, l2)
    wrong = bias + torch.linspace(-1, 1, len(bias), dtype=torch.float64)
    certificate = certify(case.features, case.labels, weight, wrong, l2)
    assert certificate.bias_residual > 1e-3
    assert certificate.duality_gap > 1e-3
    distance = certificate.objective - value
    assert certificate.duality_gap >= distance - 1e-12
    assert naive_gap(case, weight, wrong, l2) != pytest.approx(distance, rel=0.1)


def test_the_formula_without_the_best_bias_would_be_wrong():
    """Why the certificate solves for the bias: the plain gradient can claim far too little."""
    features = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 1])
    weight, bias = torch.zeros(2, 1, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    l2 = 10.0
    case = Case("crossed", features, labels, 2)
    best, _, _ = reference_optimum(features, labels, 2, l2)
    certificate = certify(features, labels, weight, bias, l2)
    assert naive_gap(case, weight, bias, l2) < 0.1 * (certificate.objective - best)
    assert certificate.duality_gap >= certificate.objective - best


def naive_gap(case, weight, bias, l2):
    p = (case.features @ weight.T + bias).softmax(1)
    residuals = (p - torch.eye(case.num_classes, dtype=torch.float64)[case.labels]) / len(p)
    return float((residuals.T @ case.features + l2 * weight).square().sum()) / (2 * l2)


def test_shifting_all_biases_changes_nothing(case):
    _, weight, bias = at_optimum(case, 1e-3)
    shifted = certify(case.features, case.labels, weight, bias + 5, 1e-3)
    assert shifted.duality_gap < 1e-8


def test_raw_features_give_the_same_certificate(case):
    raw = case.features * 1e-7 + 3e-7
    features = raw.clone()
    standardisation = Standardisation.fit_(features)
    _, weight, bias = at_optimum(case, 1e-3)
    weight = weight + 0.01
    direct = certify(features, case.labels, weight, bias, 1e-3)
    rechecked = certify(raw, case.labels, weight, bias, 1e-3, standardisation=standardisation)
    assert rechecked.duality_gap == pytest.approx(direct.duality_gap, rel=1e-6)
    assert rechecked.objective == pytest.approx(direct.objective, rel=1e-9)


def test_float32_features_are_read_as_they_are(case):
    _, weight, bias = at_optimum(case, 1e-3)
    rounded = case.features.float()
    low = certify(rounded, case.labels, weight, bias, 1e-3)
    high = certify(rounded.double(), case.labels, weight, bias, 1e-3)
    assert low == high


def test_weights_count_as_duplicates(case):
    counts = torch.arange(len(case.labels)) % 3
    repeat = torch.repeat_interleave(torch.arange(len(case.labels)), counts)
    weight = torch.randn(case.num_classes, case.features.shape[1], dtype=torch.float64)
    bias = torch.zeros(case.num_classes, dtype=torch.float64)
    weighted = certify(case.features, case.labels, weight, bias, 1e-2, sample_weight=counts)
    repeated = certify(case.features[repeat], case.labels[repeat], weight, bias, 1e-2)
    assert weighted.duality_gap == pytest.approx(repeated.duality_gap, rel=1e-9)
    assert weighted.error_rate == pytest.approx(repeated.error_rate, abs=1e-12)


def test_a_hopeless_bias_is_still_solved_for():
    """Logits of +-1000 saturate every softmax; damping has to find the way back."""
    features = torch.tensor([[1.0], [-1.0], [0.5], [-0.5]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1])
    weight = torch.zeros(2, 1, dtype=torch.float64)
    certificate = certify(features, labels, weight, torch.tensor([1000.0, -1000.0]), 1.0)
    best = certify(features, labels, weight, torch.zeros(2), 1.0)
    assert certificate.duality_gap >= certificate.objective - best.objective


def test_a_class_without_samples_belongs_at_minus_infinity():
    features = torch.randn(30, 2, dtype=torch.float64)
    labels = torch.arange(30) % 2
    _, weight, bias = reference_optimum(features, labels, 2, 1e-2)
    weight = torch.cat([torch.from_numpy(weight), torch.zeros(1, 2, dtype=torch.float64)])
    bias = torch.cat([torch.from_numpy(bias), torch.tensor([float("-inf")])])
    assert certify(features, labels, weight, bias, 1e-2).duality_gap < 1e-10
    bias[2] = 0.0
    assert certify(features, labels, weight, bias, 1e-2).duality_gap > 0.1


@pytest.mark.parametrize("size", [0.1, 5.0])
def test_it_is_the_same_however_few_rows_are_worked_on_at_a_time(case, size, monkeypatch):
    draw = torch.Generator().manual_seed(0)
    weight = size * torch.randn(case.num_classes + 1, case.features.shape[1], generator=draw)
    bias, weight = torch.randn(case.num_classes + 1, generator=draw).double(), weight.double()
    share = torch.rand(len(case.labels), generator=draw)
    found = []
    for numbers in (2**21, 64):
        monkeypatch.setattr("linprobe.core.duals._BLOCK_NUMBERS", numbers)
        c = certify(case.features, case.labels, weight, bias, 1e-3, sample_weight=share)
        found.append([c.objective, c.duality_gap, c.bias_residual, c.error_rate, c.grad_norm])
    assert found[0] == pytest.approx(found[1], rel=1e-10)
