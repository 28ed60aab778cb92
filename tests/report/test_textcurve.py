"""The curve of letters, read back from its rows."""

import math

import pytest

from linprobe.report.textcurve import HEIGHT, text_curves
from tests.support.records import (
    checkpoint_record,
    probe_record,
    read_again,
    run_record,
    trained_run,
)


def lines_of(rates, *, braille=False, width=49, **changes):
    """Rows of the plot of one checkpoint, without the axis: 40 letters wide."""
    lines = text_curves(
        run_record(checkpoint_record(rates), **changes), width=width, braille=braille
    )
    assert len(lines) == HEIGHT + 3
    return [line.partition("|")[2] for line in lines[1 : HEIGHT + 1]]


def test_a_falling_curve_goes_from_the_top_left_to_the_bottom_right():
    rows = lines_of([0.4, 0.0])
    assert rows[0].startswith("**")
    assert rows[-1].rstrip().endswith("**")
    assert len(rows[-1]) == 40
    firsts = [row.index("*") for row in rows]
    assert firsts == sorted(firsts)


def test_a_step_is_a_vertical_line():
    rows = lines_of([0.4] * 20 + [0.0] * 20)
    assert all("*" in row for row in rows)
    assert rows[0].count("*") == pytest.approx(20, abs=1)


def test_braille_dots_are_finer_than_letters():
    run = run_record(checkpoint_record([0.4, 0.36]))
    first = text_curves(run, width=49, braille=True)[1]
    letters = first.partition("\N{BOX DRAWINGS LIGHT VERTICAL}")[2]
    assert len(set(letters)) > 1
    assert all(0x2800 < ord(letter) <= 0x28FF for letter in letters)


def test_the_axis_says_the_scale():
    lines = text_curves(run_record(checkpoint_record([0.4, 0.2])), width=49, braille=False)
    assert lines[0] == "test error, untrained"
    assert lines[1].startswith(" 0.4000 |")
    assert lines[1 + HEIGHT // 2].startswith(" 0.2000 |")
    assert lines[HEIGHT].startswith(" 0.0000 |")
    assert lines[HEIGHT + 1].split() == ["input", "logits"]
    assert len(lines[HEIGHT + 1]) == 49


@pytest.mark.parametrize(
    ("highest", "top"), [(0.674, 0.7), (0.7, 0.7), (0.0731, 0.08), (0.09, 0.1), (1.0, 1.0)]
)
def test_a_linear_scale_ends_at_a_round_number(highest, top):
    lines = text_curves(run_record(checkpoint_record([highest, highest / 2])), width=49)
    assert lines[1].startswith(f" {top:.4f} ")
    assert lines[1 + HEIGHT // 2].startswith(f" {top / 2:.4f} ")


def test_errors_far_apart_get_a_logarithmic_scale_that_checkpoints_share():
    run = run_record(
        checkpoint_record([0.5, 0.1]), checkpoint_record([0.1, 0.001], "trained", 2000)
    )
    lines = text_curves(run, width=60, braille=False)
    assert lines[0] == "test error, untrained, logarithmic scale"
    assert lines[HEIGHT + 3] == "test error, trained, after 2,000 minibatches, logarithmic scale"
    for start in (1, HEIGHT + 4):
        assert lines[start].startswith(" 0.5000 |")
        assert lines[start + HEIGHT - 1].startswith(" 0.0010 |")


def test_probes_that_are_not_certified_are_crossed():
    probes = (
        probe_record(0, "a", 0.4),
        probe_record(1, "b", math.nan, "nonfinite_features"),
        probe_record(2, "c", 0.4, "max_passes_reached"),
    )
    run = run_record(checkpoint_record([], probes=probes))
    lines = text_curves(run, width=49, braille=False)
    assert lines[1].endswith("x")
    assert lines[HEIGHT].count("x") == 1
    assert "*" not in lines[1].partition("|")[2][2:]  # nothing leads to or from the lost one


def test_trained_probes_are_not_crossed():
    lines = text_curves(trained_run("early_stop", "epoch_limit"), width=49, braille=False)
    assert not any("x" in line for line in lines[1 : HEIGHT + 1])


@pytest.mark.parametrize("rates", [[0.3], [0.0], [0.0, 0.0], [1.0] * 500])
@pytest.mark.parametrize("width", [5, 80])
@pytest.mark.parametrize("braille", [True, False])
def test_any_shape_can_be_drawn(rates, width, braille):
    lines = text_curves(run_record(checkpoint_record(rates)), width=width, braille=braille)
    assert all(len(line) <= max(width, 19) for line in lines[1:])


def test_no_values_no_curve():
    lost = probe_record(rate=math.nan, status="nonfinite_features")
    assert text_curves(run_record(checkpoint_record([], probes=(lost,))), width=80) == []
    assert text_curves(run_record(), width=80) == []


def test_what_the_network_itself_sees_has_a_mark_and_a_line_of_words():
    checkpoint = read_again(checkpoint_record([0.2] * 5), ["layer1", "layer3"], 0.8)
    lines = text_curves(run_record(checkpoint), width=49, braille=False)
    assert lines[1].count("o") == 2 and "0.8000" in lines[1]
    assert lines[-2].strip() == "o probe of float32 activations"
    assert not any("o probe" in line for line in text_curves(run_record(), width=49))
