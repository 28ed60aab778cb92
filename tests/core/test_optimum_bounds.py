"""The exact optimum lies where the certificate says, and its test error in the interval."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch

from linprobe.core import optimum_bounds as optimum
from linprobe.core import pair_bounds
from linprobe.core.certificate import certify
from linprobe.core.features import DenseFeatures, Standardisation
from linprobe.core.optimum_bounds import OptimumBounds, OptimumError, UnknownBounds
from linprobe.core.solvers.base import Point
from tests.support.cases import CASES
from tests.support.reference import reference_optimum

SAME = Standardisation(torch.zeros(1, dtype=torch.float64), 1.0)
PENALTIES = (1e-1, 1e-2, 1e-3, 1e-5)
DISTANCES = (1e-7, 1e-4, 1e-2, 0.1, 1.0, 10.0)


@pytest.fixture(params=[256, 4], ids=["all directions", "span of few rows"])
def rank(request, monkeypatch):
    monkeypatch.setattr(optimum, "MAX_RANK", request.param)


def optimum_of(case, l2, rows):
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
    """A loose solution at that distance from the optimum, and its bounds."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(weight.shape, generator=generator).double()
    loose = weight + distance * noise / noise.norm()
    x, y = case.features[rows], case.labels[rows]
    point = Point(loose, bias, loose @ x.T)
    return loose, OptimumBounds(DenseFeatures(x), point, l2, certify(x, y, loose, bias, l2))


def actual_moves(case, bounds, loose, weight, bias, pair):
    """How the margins of the pair move from the loose solution to the optimum."""
    x = case.features
    before = loose @ x.T + (bias + bounds.bias_shift)[:, None]
    after = weight @ x.T + bias[:, None]
    return (after[pair[0]] - after[pair[1]]) - (before[pair[0]] - before[pair[1]])


@pytest.mark.parametrize("l2", PENALTIES)
def test_no_margin_moves_farther_than_the_bound(case, rank, l2):
    rows = halves(case)
    weight, bias = optimum_of(case, l2, rows)
    tightest = 0.0
    for seed, distance in enumerate(DISTANCES):
        loose, bounds = near(case, rows, weight, bias, distance, l2, seed)
        seen = bounds._pairs.see(case.features, SAME)
        for pair in combinations(range(case.num_classes), 2):
            centre, reach = bounds._pairs.moves(pair, seen)
            off = (actual_moves(case, bounds, loose, weight, bias, pair) - centre).abs()
            assert bool((off <= reach + 1e-7).all())
            tightest = max(tightest, float((off / reach.clamp_min(1e-6)).max()))
    assert tightest > 3e-3, "so wide a bound says nothing"


@pytest.mark.parametrize("l2", PENALTIES)
def test_interval_holds_the_optimums_error(case, rank, l2):
    rows = halves(case)
    weight, bias = optimum_of(case, l2, rows)
    exact = (weight @ case.features.T + bias[:, None]).argmax(0) != case.labels
    rate = float(exact.double().mean())
    widths = []
    for seed, distance in enumerate(DISTANCES):
        loose, bounds = near(case, rows, weight, bias, distance, l2, seed)
        logits = loose @ case.features.T + bias[:, None]
        found = bounds.error_interval(logits, case.labels, case.features, SAME)
        assert found.low - 1e-12 <= rate <= found.high + 1e-12
        undecided = found.num_undecided / len(case.labels)
        assert undecided == pytest.approx(found.high - found.low)
        widths.append(undecided)
    assert widths[0] <= 0.02, "the interval closes with the gap"
    assert widths[0] <= widths[2] <= widths[4]


def test_smaller_bounds_would_be_wrong():
    missed = 0
    for case in CASES:
        rows = halves(case)
        weight, bias = optimum_of(case, 1e-2, rows)
        exact = (weight @ case.features.T + bias[:, None]).argmax(0) != case.labels
        for seed in range(5):
            loose, bounds = near(case, rows, weight, bias, 3.0, 1e-2, seed)
            bounds._pairs.gap /= 1e4
            logits = loose @ case.features.T + bias[:, None]
            found = bounds.error_interval(logits, case.labels, case.features, SAME)
            missed += not found.low <= float(exact.double().mean()) <= found.high
    assert missed > 5, "the check must be able to fail"


def test_bound_is_tight_where_only_the_penalty_binds():
    # A feature that is zero in training: its weight is off by -G / l2, m0 and the bound are half.
    case, l2 = CASES[4], 1e-2
    rows = torch.arange(len(case.labels))
    weight, bias = optimum_of(case, l2, rows)
    x = torch.cat([case.features, torch.zeros(len(rows), 1).double()], dim=1)
    off = torch.tensor([[0.01], [-0.01]], dtype=torch.float64)
    loose = torch.cat([weight, off], dim=1)
    point, certificate = Point(loose, bias, loose @ x.T), certify(x, case.labels, loose, bias, l2)
    bounds = OptimumBounds(DenseFeatures(x), point, l2, certificate)
    far = torch.zeros(1, x.shape[1]).double()
    far[0, -1] = 1e4
    centre, reach = bounds._pairs.moves((0, 1), bounds._pairs.see(far, SAME))
    actual = -far[0, -1] * 0.02
    assert float(centre) == pytest.approx(float(actual) / 2, rel=1e-3)
    assert float(reach) >= abs(float(actual - centre))
    assert float(reach) == pytest.approx(abs(float(actual)) / 2, rel=0.1)
    assert abs(float(actual + centre)) > float(reach), "m0 with the wrong sign would be seen"


def test_small_gaps_give_the_leverage_and_a_damped_newton_step(monkeypatch):
    monkeypatch.setattr(pair_bounds, "_quantile", lambda values, *_: values.max())
    case, l2 = CASES[4], 1e-2
    rows = torch.arange(len(case.labels))
    weight, bias = optimum_of(case, l2, rows)
    loose, bounds = near(case, rows, weight, bias, 1e-5, l2, 0)
    x = case.features
    p = (loose @ x.T + (bias + bounds.bias_shift)[:, None]).softmax(0)
    c = p[0] * p[1] / len(x)
    y = x - c @ x / c.sum()
    inverse = torch.linalg.inv((y * c[:, None]).T @ y + l2 * torch.eye(x.shape[1]).double())
    slope = bounds.gradient[0] - bounds.gradient[1]
    leverage = 1 / c.sum() + ((y @ inverse) * y).sum(1)
    centre, reach = bounds._pairs.moves((0, 1), bounds._pairs.see(x, SAME))
    torch.testing.assert_close(centre, -0.5 * y @ inverse @ slope, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(reach, (bounds.gap * leverage).sqrt(), rtol=5e-3, atol=0)


def test_given_bias_does_not_matter():
    case = CASES[0]
    rows = torch.arange(len(case.labels))
    weight, bias = optimum_of(case, 1e-2, rows)
    x, y = case.features, case.labels
    off = torch.tensor([0.3, -0.2, -0.1], dtype=torch.float64)
    point, certificate = Point(weight, bias + off, weight @ x.T), certify(x, y, weight, bias, 1e-2)
    bounds = OptimumBounds(DenseFeatures(x), point, 1e-2, certificate)
    shift = bounds.bias_shift - bounds.bias_shift.mean()
    torch.testing.assert_close(shift, -off, atol=1e-9, rtol=0)


def test_raw_features_and_standardised_ones_agree(rank):
    case = CASES[1]
    rows = torch.arange(len(case.labels))
    weight, bias = optimum_of(case, 1e-2, rows)
    loose, bounds = near(case, rows, weight, bias, 0.3, 1e-2, 0)
    logits = loose @ case.features.T + bias[:, None]
    one = bounds.error_interval(logits, case.labels, case.features, SAME)
    mean = torch.linspace(-2, 2, case.features.shape[1]).double()
    raw = case.features / 4.0 + mean
    other = bounds.error_interval(logits, case.labels, raw, Standardisation(mean, 4.0))
    assert one == other
    assert 0 < one.num_undecided < len(rows)
    single = bounds.error_interval(logits, case.labels, raw.float(), Standardisation(mean, 4.0))
    assert abs(single.num_undecided - one.num_undecided) <= 2


def test_unknown_classes_are_certainly_wrong():
    case = CASES[0]
    rows = torch.arange(len(case.labels))
    weight, bias = optimum_of(case, 1e-2, rows)
    _, bounds = near(case, rows, weight, bias, 1e-9, 1e-2, 0)
    labels = torch.full_like(case.labels, -1)
    found = bounds.error_interval(weight @ case.features.T, labels, case.features, SAME)
    assert found == OptimumError(1.0, 1.0, 0)
    assert OptimumError.unknown(7) == OptimumError(0.0, 1.0, 7)


def test_no_bound_without_a_certificate():
    case = CASES[0]
    zero = torch.zeros(case.num_classes, len(case.labels)).double()
    point = Point(zero[:, : case.features.shape[1]], zero[:, 0], zero)
    found = certify(case.features, case.labels, point.weight, point.bias, 1e-2)
    features = DenseFeatures(case.features)
    assert isinstance(OptimumBounds.of(features, point, 1e-2, found), OptimumBounds)
    nothing = replace(found, duality_gap=float("inf"))
    assert isinstance(OptimumBounds.of(features, point, 1e-2, nothing), UnknownBounds)


@pytest.mark.parametrize("l2", [1e-2, 1e-5])
def test_coarse_bounds_are_no_tighter_than_the_close_ones(case, rank, l2):
    """Without them, all pairs of all samples are looked at closely, with the same outcome."""
    rows = halves(case)
    weight, bias = optimum_of(case, l2, rows)
    for seed, distance in enumerate((1e-5, 1e-3, 0.1)):
        loose, bounds = near(case, rows, weight, bias, distance, l2, seed)
        logits = loose @ case.features.T + bias[:, None]
        found = bounds.error_interval(logits, case.labels, case.features, SAME)
        bounds._radius, usual = float("inf"), bounds._radius
        everything = bounds.error_interval(logits, case.labels, case.features, SAME)
        assert found == everything
        wrong, sample, _ = bounds._open(logits, case.labels, DenseFeatures(case.features), SAME)
        assert (int(wrong.sum()), len(sample)) == (0, len(wrong) * (case.num_classes - 1))
        bounds._radius = usual


def test_a_thousand_classes_are_bounded():
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(1000, 40, generator=generator).double()
    labels = torch.arange(1000)
    features = centres[labels] + 0.3 * torch.randn(1000, 40, generator=generator).double()
    features /= features.norm(dim=1).square().mean().sqrt()
    features -= features.mean(0)
    bias = torch.zeros(1000).double()
    weight = 20 * centres / 40
    for _ in range(3):
        certificate = certify(features, labels, weight, bias, 1e-1)
        weight = weight - certificate.gradient / 1e-1
        bias = certificate.best_bias
    found = certify(features, labels, weight, bias, 1e-1)
    bounds = OptimumBounds.of(
        DenseFeatures(features), Point(weight, bias, weight @ features.T), 1e-1, found
    )
    logits = weight @ features.T + bias[:, None]
    interval = bounds.error_interval(logits, labels, features, SAME)
    wrong = float((logits.argmax(0) != labels).double().mean())
    assert interval.low <= wrong <= interval.high
    assert interval.num_undecided < len(labels) / 2


def test_little_room_takes_fewer_rows():
    class Cramped(DenseFeatures):
        def take(self, index):
            assert len(index) <= 40
            return super().take(index)

    case, l2 = CASES[0], 1e-2
    weight, bias = optimum_of(case, l2, torch.arange(len(case.labels)))
    point = Point(weight, bias, weight @ case.features.T)
    certificate = certify(case.features, case.labels, weight, bias, l2)
    logits = weight @ case.features.T + bias[:, None]
    room = 16 * case.features.shape[1] * 40
    bounds = OptimumBounds(Cramped(case.features, room=room), point, l2, certificate)
    found = bounds._open(logits, case.labels, DenseFeatures(case.features), SAME)[0]
    wrong = logits.argmax(0) != case.labels
    assert bool((found <= wrong).all())
