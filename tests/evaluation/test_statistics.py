"""Error rates and their intervals against an independent implementation."""

import pytest
import torch
from scipy.stats import binomtest

from linprobe.evaluation.statistics import error_rate, wilson_interval
from linprobe.runtime.errors import LinprobeError


@pytest.mark.parametrize(("errors", "n"), [(0, 10), (10, 10), (1, 3), (74, 10_000), (500, 1000)])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_wilson_agrees_with_scipy(errors, n, level):
    expected = binomtest(errors, n).proportion_ci(level, method="wilson")
    low, high = wilson_interval(errors, n, level)
    assert low == pytest.approx(expected.low, abs=1e-12)
    assert high == pytest.approx(expected.high, abs=1e-12)


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
    with pytest.raises(LinprobeError, match="one class number a sample"):
        error_rate(torch.zeros(shape), torch.zeros(4))


def test_error_rate_refuses_no_samples():
    with pytest.raises(LinprobeError, match="at least one sample"):
        error_rate(torch.zeros(0), torch.zeros(0))
