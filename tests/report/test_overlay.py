"""The figure of several runs, read back from its own artists."""

import math
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex

from linprobe.records.comparison.curves import Curve
from linprobe.records.comparison.distances import compare
from linprobe.records.published import load_published
from linprobe.records.schema import MajorityErrorRate
from linprobe.report.overlay import draw_comparison
from linprobe.report.style import INK, LIGHT, VERMILION
from linprobe.runtime.errors import LinprobeError
from tests.records.comparison.test_distances import curve, deep
from tests.report.test_plots import keys, texts
from tests.support.records import checkpoint_record, dataset_record, run_config, run_record


def lines(axes, colour):
    """Heights of the lines through layers in that colour."""
    return [
        list(line.get_ydata())
        for line in axes.lines
        if to_hex(line.get_color()) == colour.lower() and len(line.get_xdata()) > 2
    ]


@pytest.fixture(scope="module")
def published():
    comparison = compare([deep(0.0), deep(0.02, "b")], published=load_published("fig8"))
    return draw_comparison(comparison)


def test_a_panel_a_checkpoint_with_its_differences_below(published):
    assert len(published.axes) == 6
    for place, axes in enumerate(published.axes[:3]):
        (first,), (second,) = lines(axes, LIGHT["blue"]), lines(axes, LIGHT["orange"])
        assert len(first) == 130
        assert np.subtract(second, first)[1:] == pytest.approx(0.02)
        below = published.axes[3 + place]
        (difference,) = lines(below, LIGHT["orange"])
        assert difference == pytest.approx([0.0] + 129 * [0.02])
        bars = next(ydata for ydata in lines(below, INK))
        assert math.isnan(bars[0])
        assert bars[1:] == pytest.approx(129 * [0.0])
    titles = [axes.get_title() for axes in published.axes[:3]]
    assert titles == ["untrained", "after 500 minibatches", "after 2,000 minibatches"]


def test_words_of_the_figure(published):
    assert keys(published) == ["a", "b", "published, train error", "majority-class baseline"]
    assert published.axes[0].get_ylabel() == "train prediction error of the probe"
    assert published.axes[3].get_ylabel() == "error minus that of\na"
    (note,) = {text for text in texts(published) if "1610.01644" in text}
    assert "seed 3" in note and "precision" in note
    assert any("skip enters\nlayer65" in text for text in texts(published))


def test_the_other_reading_is_drawn_on_request():
    comparison = compare([deep(0.0)], published=load_published("fig8"), reading="input")
    bars = lines(draw_comparison(comparison).axes[0], INK)[0]
    assert bars[0] == 0.107
    assert math.isnan(bars[-1])


def test_curves_differ_in_colour_dash_and_marker():
    curves = [curve([0.1, 0.2, 0.3], str(i)) for i in range(6)]
    axes = draw_comparison(compare(curves)).axes[0]
    drawn = [line for line in axes.lines if line.get_label() in "012345"]
    assert len(drawn) == 6
    assert len({line.get_color() for line in drawn}) == 6
    assert len({line.get_marker() for line in drawn}) == 6
    assert len({str(line._unscaled_dash_pattern) for line in drawn}) == 6
    with pytest.raises(LinprobeError, match="there are 7 runs; expected at most 6"):
        draw_comparison(compare([*curves, curve([0.1, 0.2, 0.3], "6")]))


@pytest.mark.parametrize("bad", [(), (1,), (0, 1, 2)])
def test_what_is_not_certified_is_hollow(bad):
    checkpoint = checkpoint_record([0.1, 0.2, 0.3])
    probes = tuple(
        replace(probe, status="x") if place in bad else probe
        for place, probe in enumerate(checkpoint.probes)
    )
    run = run_record(replace(checkpoint, probes=probes))
    figure = draw_comparison(compare([Curve("a", (run,), "test")]))
    (axes,) = figure.axes
    (line,) = [line for line in axes.lines if line.get_label().split(" (")[0] == "a"]
    assert (to_hex(line.get_markerfacecolor()) == "#ffffff") is (len(bad) == 3)
    marked = [line for line in axes.lines if to_hex(line.get_color()) == VERMILION.lower()]
    assert [list(line.get_xdata()) for line in marked] == ([[1]] if bad == (1,) else [])
    assert ("probe, not certified" in keys(figure)) is (bad == (1,))
    assert any("certified)" in key for key in keys(figure)) is bool(bad)


def test_seeds_are_a_mean_in_a_band():
    runs = tuple(
        run_record(checkpoint_record([0.1, rate, 0.3]), seed=seed, config=run_config())
        for seed, rate in enumerate((0.1, 0.15, 0.2))
    )
    figure = draw_comparison(compare([Curve("certified", runs, "test")]))
    (axes,) = figure.axes
    (band,) = [item for item in axes.collections if isinstance(item, PolyCollection)]
    corners = band.get_paths()[0].vertices
    assert {tuple(c) for c in corners[corners[:, 0] == 1]} == {(1.0, 0.1), (1.0, 0.2)}
    assert lines(axes, LIGHT["blue"])[0] == pytest.approx([0.1, 0.15, 0.3])
    label = "certified, seeds 0 to 2: mean of n = 3, band from least to largest"
    assert keys(figure)[0] == label


def test_values_that_are_lost_are_crosses():
    axes = draw_comparison(compare([curve([0.1, math.nan, 0.3])])).axes[0]
    (cross,) = [line for line in axes.lines if line.get_marker() == "x"]
    assert list(cross.get_xdata()) == [1]


@pytest.mark.parametrize(("rates", "scale"), [([0.1, 0.2], "linear"), ([0.01, 0.5], "log")])
def test_wide_rates_get_a_logarithmic_scale(rates, scale):
    figure = draw_comparison(
        compare([curve(rates, config=run_config()), curve(rates, "b", config=run_config())])
    )
    axes = figure.axes[0]
    assert axes.get_yscale() == scale
    low, high = axes.get_ylim()
    assert low <= rates[0] and rates[1] < high < 2 * rates[1]
    assert figure.axes[1].get_yscale() == "linear"
    assert not any("skip" in text for text in texts(figure))


def test_quick_runs_are_marked():
    figure = draw_comparison(compare([curve([0.1, 0.2]), curve([0.1, 0.2], "b", quick=True)]))
    assert texts(figure).count("QUICK RUN") == 2  # both rows
    assert any("not a result" in text for text in texts(figure))


def test_majority_is_left_out_where_runs_differ_in_it():
    other = dataset_record(name="x", majority_error_rate=MajorityErrorRate(0.5, 0.5))
    figure = draw_comparison(compare([curve([0.1, 0.2]), curve([0.1, 0.2], "b", dataset=other)]))
    assert keys(figure) == ["a", "b"]


def test_a_trained_curve_is_hollow_and_no_alarm():
    """Even where training happens to end at an optimum."""
    checkpoint = checkpoint_record([0.1, 0.2, 0.3])
    statuses = ("epoch_limit", "converged", "early_stop")
    probes = [replace(p, status=s) for p, s in zip(checkpoint.probes, statuses, strict=True)]
    run = run_record(replace(checkpoint, probes=tuple(probes)), protocol="sgd")
    figure = draw_comparison(compare([Curve("a", (run,), "test")]))
    (line,) = [line for line in figure.axes[0].lines if line.get_label().split(" (")[0] == "a"]
    assert to_hex(line.get_markerfacecolor()) == "#ffffff"
    assert "probe, not certified" not in keys(figure)
