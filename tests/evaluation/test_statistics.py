"""Error rates, their intervals and their differences, against the formulas they are defined by."""

import math
from statistics import NormalDist

import pytest
import torch

from linprobe.evaluation.statistics import (
    depth_steps,
    error_rate,
    holm,
    mcnemar_exact,
    wilson_interval,
)
from linprobe.runtime.errors import LinprobeError


@pytest.mark.parametrize(("errors", "n"), [(0, 10), (10, 10), (1, 3), (74, 10_000), (500, 1000)])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_wilson_ends_are_z_deviations_from_the_rate(errors, n, level):
    # Both roots p of (rate - p)^2 = z^2 p (1 - p) / n.
    z2, rate = NormalDist().inv_cdf(0.5 + level / 2) ** 2, errors / n
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (rate * (1 - rate) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    low, high = wilson_interval(errors, n, level)
    assert low == pytest.approx(centre - half, abs=1e-12)
    assert high == pytest.approx(centre + half, abs=1e-12)


def test_wilson_stays_in_the_unit_interval():
    assert wilson_interval(0, 5)[0] == 0.0
    assert wilson_interval(5, 5)[1] == 1.0


@pytest.mark.parametrize(("errors", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(errors, n):
    with pytest.raises(LinprobeError, match=f"{errors} errors of {n} samples.*counts, not rates"):
        wilson_interval(errors, n)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_wilson_refuses_a_level_that_is_no_coverage(level):
    with pytest.raises(LinprobeError, match=r"level is .*such as 0\.95"):
        wilson_interval(1, 5, level)


def test_error_rate_counts_wrong_predictions():
    labels = torch.tensor([0, 1, 2, 2])
    assert error_rate(torch.tensor([0, 1, 2, 0]), labels) == 0.25
    assert error_rate(labels, labels) == 0.0


@pytest.mark.parametrize("shape", [(3,), (4, 1), ()])
def test_error_rate_refuses_other_shapes(shape):
    with pytest.raises(LinprobeError, match="one class number per sample"):
        error_rate(torch.zeros(shape), torch.zeros(4))


def test_error_rate_refuses_no_samples():
    with pytest.raises(LinprobeError, match="at least one sample"):
        error_rate(torch.zeros(0), torch.zeros(0))


@pytest.mark.parametrize("pair", [(0, 0), (1, 0), (5, 5), (3, 12), (40, 90), (1200, 1500)])
def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs(pair):
    n = sum(pair)
    tail = sum(math.comb(n, k) for k in range(min(pair) + 1))  # exact, in whole numbers
    expected = min(1.0, 2 * tail / (1 << n))
    assert mcnemar_exact(*pair) == pytest.approx(expected, rel=1e-10)
    assert mcnemar_exact(*pair[::-1]) == mcnemar_exact(*pair)


def test_mcnemar_by_hand():
    # Binomial(6, 1/2): P(X <= 1) = (1 + 6) / 64.
    assert mcnemar_exact(1, 5) == 14 / 64
    # Too many samples for factorials in floating point.
    assert mcnemar_exact(3000, 0) == 0.0
    assert mcnemar_exact(1000, 0) == 2.0**-999
    assert mcnemar_exact(20_000, 20_000) == 1.0


def test_mcnemar_refuses_negative_counts():
    with pytest.raises(LinprobeError, match=r"counts are -1 and 2; expected numbers from 0 on"):
        mcnemar_exact(-1, 2)


def test_holm_by_hand():
    # .01 * 4, .02 * 3, then .03 * 2 = .06 and .2 * 1, in the order given.
    assert holm([0.03, 0.01, 0.2, 0.02]) == pytest.approx([0.06, 0.04, 0.2, 0.06])
    # .015 * 3 = .045 would fall to .02 * 2 = .04: it may not.
    assert holm([0.015, 0.02, 0.9]) == pytest.approx([0.045, 0.045, 0.9])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_refuses_what_is_no_probability():
    with pytest.raises(LinprobeError, match=r"p-value is 1\.5; expected a number between 0 and 1"):
        holm([0.5, 1.5])


def test_holm_keeps_the_family_error():
    generator = torch.Generator().manual_seed(0)
    families = torch.rand(4000, 8, generator=generator).tolist()
    rejecting = sum(min(holm(p)) <= 0.05 for p in families) / len(families)
    unadjusted = sum(min(p) <= 0.05 for p in families) / len(families)
    assert rejecting <= 0.065
    assert unadjusted > 0.3, "the check must be able to fail"


def wrong_at(rows, n=400):
    predicted = torch.zeros(n, dtype=torch.uint8)
    predicted[list(rows)] = 1
    return predicted


def test_steps_say_falls_rises_and_cannot_tell():
    predicted = {
        "a": wrong_at(range(80)),
        "b": wrong_at(range(20, 50)),  # 50 fixed, none broken
        "c": wrong_at(range(22, 53)),  # 2 fixed, 3 broken
        "d": wrong_at(range(22, 100)),  # none fixed, 47 broken
    }
    steps = depth_steps(predicted, torch.zeros(400, dtype=torch.int64))
    assert [(s.from_layer, s.to_layer) for s in steps] == [("a", "b"), ("b", "c"), ("c", "d")]
    assert [(s.num_fixed, s.num_broken) for s in steps] == [(50, 0), (2, 3), (0, 47)]
    assert [s.verdict for s in steps] == ["falls", "can't tell", "rises"]
    assert steps[0].p_holm == pytest.approx(3 * steps[0].p_value)
    assert steps[1].p_holm == steps[1].p_value == 1.0


def test_a_step_needs_more_evidence_among_many():
    labels = torch.zeros(400, dtype=torch.int64)
    two = {"a": wrong_at(range(10)), "b": wrong_at(range(1, 3))}
    assert depth_steps(two, labels)[0].verdict == "falls"  # 8 fixed, none broken: p = 1/128
    many = two | {f"later{i}": two["b"] for i in range(9)}
    assert {step.verdict for step in depth_steps(many, labels)} == {"can't tell"}


def test_one_layer_has_no_steps():
    assert depth_steps({"a": torch.zeros(5)}, torch.zeros(5)) == ()


def test_layers_need_a_prediction_a_sample():
    with pytest.raises(LinprobeError, match=r"layer 'a' has predictions of shape \(4,\) for 5"):
        depth_steps({"a": torch.zeros(4)}, torch.zeros(5))
