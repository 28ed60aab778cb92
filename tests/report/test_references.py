"""What stands beside a curve."""

import math

import pytest

from linprobe.report.references import fitting_scale, optimum_is_close, references
from linprobe.report.style import CONTROL_LOOKS, NETWORK
from tests.support.records import (
    checkpoint_record,
    control_record,
    dataset_record,
    evaluation_record,
    probe_record,
    run_record,
)


def of(checkpoint, **changes):
    return references(run_record(checkpoint, **changes), checkpoint)


def test_the_network_and_the_commonest_class_are_lines():
    network, majority = of(checkpoint_record([0.1, 0.2]))
    assert (network.look, network.value, network.values) == (NETWORK, 0.9, [0.9])
    assert majority.look is CONTROL_LOOKS["majority"]
    assert majority.label == "always the commonest class, 0.8865"
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
    assert [(point.layer, point.place) for point in found.points] == [("layer1", 1), ("logits", 2)]
    first = found.points[0]
    assert (first.value, first.selectivity) == pytest.approx((0.85, 0.8))
    assert (first.low, first.high, first.draws) == (0.8, 0.9, 2)


def test_a_recorded_commonest_class_counts_once():
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
        return fitting_scale(run, run.checkpoints)

    assert scale(0.08, 0.006) == "linear"
    assert scale(0.49, 0.006) == "log"
    assert scale(0.08, 0.0) == "linear"
    assert scale(math.nan) == "linear"
    checkpoint = checkpoint_record([0.02, 0.03], network_test_error_rate=0.9)
    assert fitting_scale(run_record(checkpoint), [checkpoint]) == "log"
    assert fitting_scale(run_record(checkpoint), [checkpoint], alone=True) == "linear"


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
