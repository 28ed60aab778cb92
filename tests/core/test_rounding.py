"""What rounding costs a probe is what noise of its size does, and grows as the penalty falls."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from linprobe.core.features import DenseFeatures, StandardisedFeatures, standardised
from linprobe.core.problem import SoftmaxRegression
from linprobe.core.rounding import LIMIT, LIMIT_SHORT, is_rounded, rounding_cost
from linprobe.core.solvers.base import Point
from linprobe.core.solvers.newton import SubsampledNewton
from tests.support.cases import make_case, tilted
from tests.support.reference import reference_optimum

MEAN = 3e4  # float32 rounds it by about a thousandth of what varies


def fitted(x, labels, num_classes, l2):
    """Standardise float64 rows, as values of float32, and solve for the optimum."""
    features = standardised(DenseFeatures(x, born=torch.float32))
    (rows,) = features.blocks(len(x))
    _, weight, bias = reference_optimum(rows, labels, num_classes, l2)
    weight, bias = torch.from_numpy(weight), torch.from_numpy(bias)
    return features, rows, Point(weight, bias, weight @ rows.T)


@pytest.fixture(scope="module")
def case():
    return make_case("rounding", 400, 6, 3, noise=0.5)


def test_the_cost_is_what_noise_of_that_size_adds_to_the_cross_entropy(case):
    labels = case.labels
    features, rows, point = fitted(case.features.double() + MEAN, labels, 3, 1e-4)
    noise = torch.randn(400, *rows.shape, generator=torch.Generator().manual_seed(0)).double()
    noise *= features.rounding_deviation

    def loss(x):
        return float(cross_entropy(x @ point.weight.T + point.bias, labels))

    added = [(loss(rows + part) + loss(rows - part)) / 2 - loss(rows) for part in noise]
    expected = sum(added) / len(added)
    assert rounding_cost(features, point) == pytest.approx(expected, rel=0.05)


def test_samples_count_by_their_weight(case):
    features, _, point = fitted(case.features.double() + MEAN, case.labels, 3, 1e-4)
    weight = torch.arange(400).remainder(3).float()
    copies = torch.repeat_interleave(torch.arange(400), weight.long())
    same = Point(point.weight, point.bias, point.logits[:, copies])
    found = rounding_cost(features, point, weight)
    assert found == pytest.approx(rounding_cost(features, same), rel=1e-6)


def test_the_bound_is_no_less(case):
    features, _, point = fitted(case.features.double() + MEAN, case.labels, 3, 1e-4)
    cost = rounding_cost(features, point)
    assert 0 < cost <= rounding_cost(features, point, enough=math.inf)
    assert rounding_cost(features, point, enough=cost / 2) == cost


def test_the_cost_is_what_the_minimum_changes_by_as_rounding_grows(case):
    """Both signs of the noise, so that labels and noise are not related."""
    features = standardised(DenseFeatures(case.features.double()))
    (rows,) = features.blocks(400)
    noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(0)).double()
    noise = 0.05 * torch.linalg.qr(noise).Q * 20  # a deviation of .05, uncorrelated
    minima, costs = [], []
    for factor in (1.0, 1.1):
        x = torch.cat([rows + factor * noise, rows - factor * noise])
        minimum, weight, bias = reference_optimum(x, case.labels.repeat(2), 3, 1e-3)
        weight, bias = torch.from_numpy(weight), torch.from_numpy(bias)
        p = (weight @ x.T + bias[:, None]).softmax(0)
        spread = torch.diag(p.mean(1)) - p @ p.T / len(x)
        costs.append(float(((factor * 0.05) ** 2 * weight.T @ spread @ weight).trace()) / 2)
        minima.append(minimum)
    change = (minima[1] - minima[0]) / math.log(1.1**2)
    assert sum(costs) / 2 == pytest.approx(change, rel=0.1)


@pytest.mark.parametrize("l2", [1e-2, 1e-8, 1e-14])
def test_rounding_counts_for_no_penalty_above_the_one_that_is_safe(l2):
    x, labels = tilted(400, 0)
    features = standardised(DenseFeatures(x, born=torch.float32))
    solver = SubsampledNewton(SoftmaxRegression(features, labels, 2))
    point = solver.solve(l2, tol=1e-5, max_passes=1000).point
    most = float(features.rounding_deviation.max()) ** 2 * math.log(2)
    assert rounding_cost(features, point) <= most / (2 * l2)
    assert not features.rounded and features.rounding < 1e-6
    assert is_rounded(features, point) == (l2 == 1e-14)
    exact = standardised(DenseFeatures(x))
    assert not is_rounded(exact, point)


def test_sixteen_bits_are_allowed_more(case):
    features, _, point = fitted(case.features.double() + 4.0, case.labels, 3, 1e-4)
    short = StandardisedFeatures(features, features.standardisation, torch.bfloat16)
    assert LIMIT < rounding_cost(short, point) < LIMIT_SHORT
    assert not short.rounded and not is_rounded(short, point)
