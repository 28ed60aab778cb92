"""One checkpoint's curve, read back from the artists on its axes."""

import math
from dataclasses import replace

import matplotlib
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from linprobe.report.building import build_chart
from linprobe.report.curve import draw_curve
from linprobe.report.style import (
    BLUE,
    CONTROL_LOOKS,
    LIGHT,
    NETWORK,
    OPTIMUM,
    STYLE,
    VERMILION,
)
from tests.support.records import (
    checkpoint_record,
    control_record,
    evaluation_record,
    probe_record,
    run_record,
    step_record,
)

RATES = [0.08, 0.02, 0.03, 0.01]


def drawn(checkpoint, scale="linear", *, inches=6.0, alone=True, controls=True, **changes):
    axes = Figure().add_subplot()
    with matplotlib.rc_context(STYLE):
        chart = build_chart(run_record(checkpoint, **changes), checkpoint)
        draw_curve(axes, chart, scale, inches=inches, alone=alone, controls=controls)
    return axes


def with_probe(checkpoint, place, **changes):
    probes = list(checkpoint.probes)
    probes[place] = replace(probes[place], **changes)
    return replace(checkpoint, probes=tuple(probes))


def points(axes, label):
    """Places, rates and error bars of the probes with that label in the key."""
    (found,) = [bar for bar in axes.containers if bar.get_label() == label]
    line, _, (bars,) = found.lines
    ends = [tuple(segment[:, 1]) for segment in bars.get_segments()]
    return list(line.get_xdata()), list(line.get_ydata()), ends, line


def texts(axes):
    return [text.get_text() for text in axes.texts]


def labelled(axes):
    return axes.get_legend_handles_labels()[1]


def test_rates_intervals_and_names():
    checkpoint = checkpoint_record(RATES)
    axes = drawn(checkpoint)
    places, rates, ends, line = points(axes, "probe, certified optimum")
    assert places == [0, 1, 2, 3]
    assert rates == RATES
    for end, probe in zip(ends, checkpoint.probes, strict=True):
        assert end == pytest.approx(probe.test_error_ci95)
    assert to_hex(line.get_markerfacecolor()) == BLUE.lower()
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["input", "layer1", "layer2", "logits"]
    assert texts(axes) == [f"{rate:.4f}" for rate in RATES]


def test_values_are_left_out_where_they_have_no_room():
    assert texts(drawn(checkpoint_record(RATES), inches=1.0)) == []


def test_probes_that_are_not_converged_are_hollow_and_lost_ones_crosses():
    checkpoint = with_probe(checkpoint_record(RATES), 1, status="max_passes_reached")
    lost = {"status": "nonfinite_features", "test_error_rate": math.nan}
    checkpoint = with_probe(checkpoint, 2, test_error_ci95=(math.nan, math.nan), **lost)
    axes = drawn(checkpoint)
    places, rates, _, line = points(axes, "probe, not certified")
    assert (places, rates) == ([1], [RATES[1]])
    assert to_hex(line.get_markeredgecolor()) == VERMILION.lower()
    assert line.get_markerfacecolor() == "white"
    (cross,) = [line for line in axes.lines if line.get_marker() == "x"]
    assert list(cross.get_xdata()) == [2]
    assert {"probe, certified optimum", "no value"} < set(labelled(axes))


def test_trained_probes_are_full_diamonds():
    checkpoint = with_probe(checkpoint_record(RATES), 1, status="early_stop")
    axes = drawn(with_probe(checkpoint, 2, status="epoch_limit"))
    places, rates, _, line = points(axes, "probe, trained by SGD")
    assert (places, rates) == ([1, 2], RATES[1:3])
    assert line.get_marker() == "D"
    assert to_hex(line.get_markerfacecolor()) == LIGHT["purple"].lower()
    assert "probe, not certified" not in labelled(axes)


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_a_checkpoint_of_lost_probes_can_be_drawn(scale):
    lost = probe_record(rate=math.nan, status="nonfinite_features")
    axes = drawn(checkpoint_record([], probes=(lost,)), scale)
    assert labelled(axes)[-1] == "no value"
    low, high = axes.get_ylim()
    assert 0 <= low < high


def test_dotted_where_no_change_was_found():
    steps = (step_record(0.01), step_record(0.9, from_layer="layer1", to_layer="layer2"))
    axes = drawn(checkpoint_record(RATES, steps=steps))
    solid, dotted = [line for line in axes.lines if any(math.isnan(x) for x in line.get_xdata())]
    assert [x for x in solid.get_xdata() if not math.isnan(x)] == [0, 1, 2, 3]
    assert [x for x in dotted.get_xdata() if not math.isnan(x)] == [1, 2]
    assert solid.get_linestyle() == "-"
    assert "no change found" in labelled(axes)
    assert "no change found" not in labelled(drawn(checkpoint_record(RATES)))


def test_the_range_of_the_exact_optimum_is_a_bar():
    found = evaluation_record(optimum_error_interval=(0.017, 0.023))
    checkpoint = checkpoint_record(RATES)
    axes = drawn(with_probe(checkpoint, 1, evaluation=found))
    (bar,) = [
        item
        for item in axes.collections
        if isinstance(item, LineCollection) and item.get_label() == OPTIMUM.label
    ]
    (segment,) = bar.get_segments()
    assert segment.tolist() == [[1, 0.017], [1, 0.023]]
    wide = evaluation_record(optimum_error_interval=(0.0, 0.9))
    assert OPTIMUM.label not in labelled(drawn(with_probe(checkpoint, 1, evaluation=wide)))


def test_a_linear_scale_shows_what_fits_beside_the_probes():
    assert f"{NETWORK.label}, 0.0073" in labelled(
        drawn(checkpoint_record(RATES, network_test_error_rate=0.0073))
    )
    axes = drawn(checkpoint_record(RATES, network_test_error_rate=0.9))
    assert labelled(axes) == ["probe, certified optimum"]
    low, high = axes.get_ylim()
    assert low == 0
    assert 0.08 < high < 0.12


def test_a_linear_scale_holds_the_controls_that_were_asked_for():
    checkpoint = checkpoint_record(RATES, controls=(control_record("shuffled_labels", "input"),))
    axes = drawn(checkpoint)
    assert axes.get_ylim()[1] > 0.9
    assert CONTROL_LOOKS["shuffled_labels"].label in labelled(axes)
    axes = drawn(checkpoint, controls=False)
    assert axes.get_ylim()[1] < 0.12
    assert labelled(axes) == ["probe, certified optimum"]


def test_a_logarithmic_scale_shows_everything_even_zero():
    axes = drawn(checkpoint_record([0.08, 0.0], network_test_error_rate=0.9), "log", alone=False)
    assert NETWORK.label in labelled(axes)
    low, high = axes.get_ylim()
    assert low < 0.5 / 10_000
    assert high > 0.9
    _, rates, _, _ = points(axes, "probe, certified optimum")
    assert rates == [0.08, 0.5 / 10_000]
    ticks = [label.get_text() for label in axes.get_yticklabels()]
    assert {"0.01", "0.5", "1"} < set(ticks)


def test_controls_have_the_mean_of_their_draws_and_their_range():
    draws = tuple(control_record(test_error_rate=0.05 + 0.02 * i, repeat=i) for i in range(2))
    axes = drawn(checkpoint_record(RATES, controls=draws))
    places, rates, ends, _ = points(axes, "same layer, labels shuffled")
    assert (places, rates) == ([1], pytest.approx([0.06]))
    assert ends == [pytest.approx((0.05, 0.07))]


@pytest.mark.parametrize("count", [2, 16, 17, 40, 130, 2000])
def test_layer_names_are_few_and_at_their_places(count):
    probes = tuple(probe_record(i, f"block.{i}", 0.1) for i in range(count))
    axes = drawn(checkpoint_record([], probes=probes))
    ticks = dict(
        zip(axes.get_xticks(), (t.get_text() for t in axes.get_xticklabels()), strict=True)
    )
    assert len(ticks) <= 17
    assert {0, count - 1} <= set(ticks)
    assert all(name == f"block.{place}" for place, name in ticks.items())
