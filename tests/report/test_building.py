"""What is drawn of a record."""

import math
from dataclasses import replace

import pytest

from linprobe.report.building import build_chart, optimum_is_close
from linprobe.report.chart import LOG_TICKS, fitting_scale, named_places, tick_text
from linprobe.report.measures import MEASURES, TRAIN_ERROR, V_INFORMATION, measures
from linprobe.report.style import CONTROL_LOOKS, NATIVE_LOOKS, NETWORK
from tests.support.records import (
    checkpoint_record,
    control_record,
    dataset_record,
    evaluation_record,
    probe_record,
    read_again,
    run_record,
)


def of(checkpoint, **changes):
    return build_chart(run_record(checkpoint, **changes), checkpoint).of("reference")


def test_the_network_and_the_majority_class_are_lines():
    network, majority = of(checkpoint_record([0.1, 0.2]))
    assert (network.look, network.value, network.values) == (NETWORK, 0.9, [0.9])
    assert majority.look is CONTROL_LOOKS["majority"]
    assert majority.label == "majority-class baseline, 0.8865"
    assert (
        of(
            checkpoint_record([0.1], network_test_error_rate=math.nan),
            dataset=dataset_record(majority_error_rate=None),
        )
        == []
    )


def test_draws_are_put_together_layer_by_layer():
    draws = (
        control_record(layer="logits", test_error_rate=0.5),
        control_record(test_error_rate=0.8, selectivity=0.7),
        control_record(test_error_rate=0.9, selectivity=0.9, repeat=1),
        control_record(test_error_rate=math.nan, repeat=2),
        control_record(layer="elsewhere"),
    )
    *_, found = of(checkpoint_record([0.1, 0.2, 0.3], controls=draws))
    assert found.label == found.look.label
    assert [point.place for point in found.points] == [1, 2]
    first, second = found.points
    assert (first.value, first.low, first.high) == pytest.approx((0.85, 0.8, 0.9))
    assert first.note == ("mean of 2 (0.8000\N{EN DASH}0.9000)", "selectivity 0.8000")
    assert math.isnan(second.low)


def test_a_recorded_majority_counts_once():
    controls = (control_record("majority", None, test_error_rate=0.7),)
    found = of(checkpoint_record([0.1], controls=controls))
    assert [item.value for item in found] == [0.9, 0.7]


def test_an_unknown_control_is_drawn_by_its_name():
    *_, found = of(checkpoint_record([0.1] * 3, controls=(control_record("mine"),)))
    assert found.label == "mine"


def test_scales_fit_what_is_drawn():
    def scale(*rates, **changes):
        checkpoint = checkpoint_record(rates, network_test_error_rate=math.nan)
        run = run_record(checkpoint, dataset=dataset_record(majority_error_rate=None), **changes)
        return fitting_scale([build_chart(run, checkpoint)])

    assert scale(0.08, 0.006) == "linear"
    assert scale(0.49, 0.006) == "log"
    assert scale(0.08, 0.0) == "linear"
    assert scale(math.nan) == "linear"
    checkpoint = checkpoint_record([0.02, 0.03], network_test_error_rate=0.9)
    chart = build_chart(run_record(checkpoint), checkpoint)
    assert fitting_scale([chart]) == "log"
    assert fitting_scale([chart], alone=True) == "linear"


def test_a_range_of_the_optimum_is_close_if_it_is_not_much_wider_than_chance():
    def close(*ranges):
        probes = tuple(
            probe_record(i, rate=0.1, evaluation=evaluation_record(optimum_error_interval=found))
            for i, found in enumerate(ranges)
        )
        return optimum_is_close([checkpoint_record([], probes=probes)])

    assert close((0.09, 0.12))
    assert not close((0.0, 0.9))
    assert close((0.09, 0.12), None, (0.09, 0.11), (0.0, 0.9))
    assert not close(None)
    assert not optimum_is_close([checkpoint_record([0.1, math.nan])])


def test_other_measures_have_baselines_of_their_own():
    checkpoint = checkpoint_record([0.1, 0.2])
    run = run_record(checkpoint)
    (majority,) = build_chart(run, checkpoint, TRAIN_ERROR).of("reference")
    assert majority.value == 0.88763
    assert measures(run) == list(MEASURES[:3])
    probes = tuple(replace(probe, evaluation=evaluation_record()) for probe in checkpoint.probes)
    checkpoint = replace(checkpoint, probes=probes)
    chart = build_chart(run_record(checkpoint), checkpoint, V_INFORMATION)
    assert [item.label for item in chart.of("reference")] == ["entropy of the labels, 1.0000"]
    assert chart.values() == [0.5, 0.5]
    assert chart.of("optimum", "lost") == []


def test_layers_of_other_checkpoints_keep_their_place():
    checkpoint = checkpoint_record([0.1, 0.2])
    layers = ("other", "logits", "input")
    chart = build_chart(run_record(checkpoint), checkpoint, layers=layers)
    assert chart.layers == layers
    assert chart.values() == [pytest.approx(math.nan, nan_ok=True), 0.2, 0.1]


def test_a_scale_lifts_zeros_and_leaves_out_what_does_not_fit():
    checkpoint = checkpoint_record([0.08, 0.0], network_test_error_rate=0.9)
    chart = build_chart(
        run_record(checkpoint, dataset=dataset_record(num_test=100, majority_error_rate=None)),
        checkpoint,
    )
    assert chart.placed(0.0) == 0
    log, low, high = chart.fitted("log")
    assert log.placed(0.0) == 0.005
    assert low == pytest.approx(0.005 / 1.3)
    assert high == pytest.approx(0.9 * 1.35)
    linear, low, high = chart.fitted("linear")
    assert low == 0
    assert 0.08 < high < 0.12
    assert linear.of("reference") == []


def test_ticks_are_named_where_they_fit():
    assert named_places(1, 16) == [0]
    assert named_places(4, 16) == [0, 1, 2, 3]
    assert named_places(130, 16) == [*range(0, 121, 10), 129]
    assert len(named_places(100_000, 16)) == 2
    assert [tick_text(tick) for tick in (LOG_TICKS[0], 0.05, 20.0)] == ["0.000001", "0.05", "20"]


def test_what_the_network_itself_sees_is_a_line_where_it_was_read_otherwise():
    checkpoint = checkpoint_record([0.1, 0.2, 0.3, 0.4, 0.5])
    checkpoint = read_again(checkpoint, ["layer1", "layer2", "logits"], 0.8)
    *_, found = of(checkpoint)
    assert found.look is NATIVE_LOOKS["float32"] and found.recorded
    assert [p.place for p in found.points[:6]] == pytest.approx([0.6, 1, 1.4, 1.6, 2, 2.4])
    assert math.isnan(found.points[6].place) and len(found.points) == 10
    assert found.values == 9 * [0.8]
    chart = build_chart(run_record(checkpoint), checkpoint, TRAIN_ERROR)
    assert [s.look for s in chart.of("reference")][-1] is NATIVE_LOOKS["float32"]
