"""The exact optimum lies where the certificate says, and its test error in the interval."""

import pytest
import torch
from conftest import CASES
from reference import reference_optimum

from linprobe.certificate import certify
from linprobe.optimum import OptimumBall, OptimumError
from linprobe.problem import Standardisation
from linprobe.solvers.base import Point

SAME = Standardisation(torch.zeros(1, dtype=torch.float64), 1.0)
PENALTIES = (1e-1, 1e-2, 1e-3)


def optimum(case, l2, rows):
    _, weight, bias = reference_optimum(
        case.features[rows], case.labels[rows], case.num_classes, l2
    )
    return torch.from_numpy(weight), torch.from_numpy(bias)


def halves(case):
    """Even rows for training, and all rows as test split: some seen, some not."""
    rows = torch.arange(0, len(case.labels), 2)
    seen = torch.isin(torch.arange(case.num_classes), case.labels[rows]).all()
    return rows if seen else torch.arange(len(case.labels))


def near(case, rows, weight, bias, distance, l2, seed):
    """A loose solution at that distance from the optimum, and its ball."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(weight.shape, generator=generator).double()
    loose = weight + distance * noise / noise.norm()
    x, y = case.features[rows], case.labels[rows]
    grad_norm = certify(x, y, loose, bias, l2).grad_norm
    return loose, OptimumBall(x, y, loose @ x.T, bias, l2, grad_norm)


def actual_moves(case, ball, loose, weight, bias, own):
    """How far the margins of class `own` move from the loose solution to the optimum."""
    x = case.features
    before = loose @ x.T + (bias + ball.bias_shift)[:, None]
    after = weight @ x.T + bias[:, None]
    return ((after[own] - after) - (before[own] - before)).abs()


@pytest.mark.parametrize("l2", PENALTIES)
def test_no_margin_moves_farther_than_the_bound(case, l2):
    rows = halves(case)
    weight, bias = optimum(case, l2, rows)
    tightest = 0.0
    for seed, distance in enumerate([1e-6, 1e-3, 0.1, 1.0, 10.0]):
        loose, ball = near(case, rows, weight, bias, distance, l2, seed)
        assert float((weight - loose).norm()) <= ball.radius * (1 + 1e-6) + 1e-8
        for own in range(case.num_classes):
            bounds = ball.margin_bounds(own, case.features)
            moves = actual_moves(case, ball, loose, weight, bias, own)
            assert bool((moves <= bounds + 1e-7).all())
            used = moves / bounds.clamp_min(1e-12)
            tightest = max(tightest, float(used.max()))
    assert tightest > 0.01, "so wide a bound says nothing"


@pytest.mark.parametrize("l2", PENALTIES)
def test_interval_holds_the_optimums_error(case, l2):
    rows = halves(case)
    weight, bias = optimum(case, l2, rows)
    exact = (weight @ case.features.T + bias[:, None]).argmax(0) != case.labels
    rate = float(exact.double().mean())
    widths = []
    for seed, distance in enumerate([1e-7, 1e-4, 1e-3, 1e-2, 0.1, 1.0]):
        loose, ball = near(case, rows, weight, bias, distance, l2, seed)
        logits = loose @ case.features.T + bias[:, None]
        found = ball.error_interval(logits, case.labels, case.features, SAME)
        assert found.low - 1e-12 <= rate <= found.high + 1e-12
        undecided = found.num_undecided / len(case.labels)
        assert undecided == pytest.approx(found.high - found.low)
        widths.append(undecided)
    assert widths[0] <= 0.02, "the interval closes with the gap"
    assert widths == sorted(widths)


def test_a_smaller_ball_would_be_wrong():
    missed = 0
    for case in CASES:
        rows = halves(case)
        weight, bias = optimum(case, 1e-2, rows)
        exact = (weight @ case.features.T + bias[:, None]).argmax(0) != case.labels
        for seed in range(5):
            loose, ball = near(case, rows, weight, bias, 3.0, 1e-2, seed)
            ball.radius /= 100
            ball._divergence /= 1e4
            logits = loose @ case.features.T + bias[:, None]
            found = ball.error_interval(logits, case.labels, case.features, SAME)
            missed += not found.low <= float(exact.double().mean()) <= found.high
    assert missed > 5, "the check must be able to fail"


def test_given_bias_does_not_matter():
    case = CASES[0]
    rows = torch.arange(len(case.labels))
    weight, bias = optimum(case, 1e-2, rows)
    x, y = case.features, case.labels
    off = torch.tensor([0.3, -0.2, -0.1], dtype=torch.float64)
    ball = OptimumBall(x, y, weight @ x.T, bias + off, 1e-2, 1e-5)
    shift = ball.bias_shift - ball.bias_shift.mean()
    torch.testing.assert_close(shift, -off, atol=1e-9, rtol=0)


def test_raw_features_and_standardised_ones_agree():
    case = CASES[1]
    rows = torch.arange(len(case.labels))
    weight, bias = optimum(case, 1e-2, rows)
    loose, ball = near(case, rows, weight, bias, 0.05, 1e-2, 0)
    logits = loose @ case.features.T + bias[:, None]
    one = ball.error_interval(logits, case.labels, case.features, SAME)
    mean = torch.linspace(-2, 2, case.features.shape[1]).double()
    raw = case.features / 4.0 + mean
    other = ball.error_interval(logits, case.labels, raw, Standardisation(mean, 4.0))
    assert one == other
    assert 0 < one.num_undecided < len(rows)
    single = ball.error_interval(logits, case.labels, raw.float(), Standardisation(mean, 4.0))
    assert abs(single.num_undecided - one.num_undecided) <= 2


def test_unknown_classes_are_certainly_wrong():
    case = CASES[0]
    rows = torch.arange(len(case.labels))
    weight, bias = optimum(case, 1e-2, rows)
    _, ball = near(case, rows, weight, bias, 1e-9, 1e-2, 0)
    labels = torch.full_like(case.labels, -1)
    found = ball.error_interval(weight @ case.features.T, labels, case.features, SAME)
    assert found == OptimumError(1.0, 1.0, 0)
    assert OptimumError.unknown(7) == OptimumError(0.0, 1.0, 7)


def test_no_bound_without_a_certificate_or_with_too_many_classes():
    def ball(num_classes, grad_norm):
        labels = torch.arange(2 * num_classes) % num_classes
        features = torch.eye(2 * num_classes).double()
        zero = torch.zeros(num_classes, 2 * num_classes).double()
        point = Point(zero, zero[:, 0], zero)
        return OptimumBall.of(features, labels, point, 1e-2, grad_norm)

    assert ball(3, 1e-3) is not None
    assert ball(3, float("nan")) is None
    assert ball(101, 1e-3) is None
