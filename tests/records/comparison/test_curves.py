"""One run as a curve, and the mean of several."""

import math
from dataclasses import replace

import pytest

from linprobe.records.comparison.curves import Curve, Point, subtract
from linprobe.records.seeds import spread
from tests.support.records import checkpoint_record, probe_record, run_record


def test_a_run_is_its_own_curve():
    run = run_record(checkpoint_record([0.1, 0.2, 0.3]))
    for split, factor in (("test", 1.0), ("train", 0.8)):
        curve = Curve("mine", (run,), split)
        points = curve.points("untrained")
        assert list(points) == ["input", "layer1", "logits"]
        assert points["layer1"].error.mean == pytest.approx(factor * 0.2)
        assert points["layer1"].error.n == 1
    assert curve.names() == ["untrained"]
    assert curve.long_label == "mine"


def test_means_over_what_all_runs_have():
    one = run_record(checkpoint_record([0.1, 0.2, 0.3, 0.4]), checkpoint_record([0.1], "b", 5))
    other = run_record(checkpoint_record([0.1, 0.4, 0.5]), seed=4)
    curve = Curve("x", (one, other), "test")
    assert curve.names() == ["untrained"]
    points = curve.points("untrained")
    assert list(points) == ["input", "layer1", "logits"]
    assert points["layer1"].error.mean == pytest.approx(0.3)
    assert (points["layer1"].error.low, points["layer1"].error.high) == (0.2, 0.4)
    assert curve.long_label == "x, seeds 3, 4: mean of n = 2, band from least to largest"
    named = Curve("x, seeds 3, 4", (one, other), "test")
    assert named.long_label.count("seeds 3, 4") == 1


def test_numbers_of_a_point():
    probes = (
        probe_record(l2=1e-2, duality_gap=1e-5, train_cross_entropy=0.1),
        probe_record(l2=1e-4, duality_gap=3e-5, train_cross_entropy=0.3, status="x"),
    )
    point = Point(spread([0.1, 0.1]), probes)
    assert point.l2 == pytest.approx(1e-3)
    assert point.duality_gap == 3e-5
    assert point.train_cross_entropy == pytest.approx(0.2)
    assert not point.converged
    assert Point(spread([0.1]), probes[:1]).converged
    lost = (probe_record(duality_gap=math.nan, l2=math.nan), probes[0])
    assert math.isnan(Point(spread([0.1, 0.1]), lost).duality_gap)
    assert math.isnan(Point(spread([0.1, 0.1]), lost).l2)


def test_what_is_not_certified_is_counted():
    checkpoint = checkpoint_record([0.1, 0.2, 0.3])
    probes = (replace(checkpoint.probes[0], status="x"), *checkpoint.probes[1:])
    curve = Curve("sgd", (run_record(replace(checkpoint, probes=probes)),), "test")
    assert curve.long_label == "sgd (2 of 3 certified)"


def test_differences_where_both_are_known():
    found = subtract({"a": 0.3, "b": math.nan, "c": 0.1}, {"a": 0.1, "b": 0.2, "d": 0.5})
    assert found == pytest.approx({"a": 0.2})
