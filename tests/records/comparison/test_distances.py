"""How far curves are apart, on records with planted differences."""

import math
from dataclasses import replace

import pytest

from linprobe.records.comparison.curves import Curve
from linprobe.records.comparison.distances import LOWER, UPPER, compare
from linprobe.records.published import load_published
from linprobe.runtime.errors import LinprobeError
from tests.support.records import checkpoint_record, run_config, run_record

SKIP = run_config(skip_layer="layer2")


def curve(rates, label="a", config=SKIP, split="test", **changes):
    return Curve(label, (run_record(checkpoint_record(rates), config=config, **changes),), split)


def deep(shift, label="a", split="train", **changes):
    """128 layers whose train errors are the published ones of the first reading, and `shift`."""
    published = load_published("fig8").rates
    checkpoints = []
    for name, step in (("untrained", 0), ("step500", 500), ("step2000", 2000)):
        rates = [0.07, *(rate + shift for rate in published[step]["layer"].values())]
        checkpoint = checkpoint_record(rates, name, step)
        probes = [replace(p, train_error_rate=p.test_error_rate) for p in checkpoint.probes]
        checkpoints.append(replace(checkpoint, probes=tuple(probes)))
    config = run_config(skip_layer="layer65", depth=128)
    return Curve(label, (run_record(*checkpoints, config=config, **changes),), split)


def test_planted_differences():
    first = curve([0.1, 0.2, 0.3, 0.4, 0.5])
    second = curve([0.1, 0.22, 0.2, 0.4, 0.54], "b")
    comparison = compare([first, second])
    (panel,) = comparison.panels
    assert (panel.name, panel.step) == ("untrained", 0)
    (found,) = comparison.distances(panel)
    assert (found.checkpoint, found.curve, found.other) == ("untrained", "b", "a")
    assert found.mean_absolute() == pytest.approx((0.02 + 0.1 + 0.04) / 5)
    assert found.mean_absolute(LOWER) == pytest.approx(0.02 / 2)
    assert found.mean_absolute(UPPER) == pytest.approx(0.14 / 3)
    assert found.largest == ("layer2", pytest.approx(-0.1))
    assert comparison.left_out == ()


def test_without_a_skip_there_are_no_halves():
    comparison = compare(
        [curve([0.1, 0.2], config=run_config()), curve([0.1, 0.3], "b", config=run_config())]
    )
    (found,) = comparison.distances(comparison.panels[0])
    assert found.parts == {}
    assert math.isnan(found.mean_absolute(LOWER))


def test_values_that_are_missing_are_not_counted():
    comparison = compare([curve([0.1, 0.2, 0.3]), curve([0.2, math.nan, 0.3], "b")])
    (found,) = comparison.distances(comparison.panels[0])
    assert list(found.differences) == ["input", "logits"]
    assert found.mean_absolute() == pytest.approx(0.05)
    nothing = compare([curve([math.nan]), curve([0.1], "b")])
    (found,) = nothing.distances(nothing.panels[0])
    assert found.largest is None
    assert math.isnan(found.mean_absolute())


def test_published_bars_in_both_readings():
    comparison = compare([deep(0.0), deep(0.01, "b")], published=load_published("fig8"))
    for panel in comparison.panels:
        against, right, wrong, shifted, _ = comparison.distances(panel)
        assert against.mean_absolute() == pytest.approx(0.01 * 129 / 130)
        assert (right.curve, right.other) == ("a", "published")
        assert len(right.differences) == len(wrong.differences) == 129
        assert right.mean_absolute() == pytest.approx(0.0)
        assert right.mean_absolute() < 0.002 < wrong.mean_absolute()
        assert abs(wrong.largest[1]) > 0.5 and wrong.largest[0] == "layer64"
        assert shifted.mean_absolute(UPPER) == pytest.approx(0.01)
        assert set(right.differences) - set(right.parts[LOWER]) - set(right.parts[UPPER]) == set()


def test_rows_hold_every_number():
    comparison = compare([deep(0.0), deep(0.01, "b")], published=load_published("fig8"))
    rows = list(comparison.rows())
    assert len(rows) == 3 * 130
    assert len({tuple(row) for row in rows}) == 1
    row = next(row for row in rows if (row["checkpoint"], row["layer"]) == ("step500", "layer1"))
    assert row["step"] == 500
    assert row["published"] == 0.092
    assert row["published (bar 0 = input)"] == 0.102
    assert row["b: train_error_rate"] == pytest.approx(0.102)
    assert row["b: minus first"] == pytest.approx(0.01)
    assert row["b: minus published"] == pytest.approx(0.01)
    assert row["b: minus published (bar 0 = input)"] == pytest.approx(0.0)
    assert (row["a: l2"], row["a: duality_gap"]) == (1e-6, 3e-5)
    assert (row["a: train_cross_entropy"], row["a: converged"]) == (0.2, True)
    assert "a: minus first" not in row
    assert "a: n" not in row
    assert rows[0]["layer"] == "input"
    assert rows[0]["a: minus published"] is None


def test_rows_of_a_mean_hold_its_spread():
    runs = tuple(run_record(checkpoint_record([rate]), seed=i) for i, rate in enumerate((0.1, 0.3)))
    (row,) = compare([Curve("a", runs, "test"), curve([math.nan], "b")]).rows()
    assert row["a: test_error_rate"] == pytest.approx(0.2)
    assert (row["a: min"], row["a: max"], row["a: n"]) == (0.1, 0.3, 2)
    assert row["b: test_error_rate"] is None
    assert row["b: minus first"] is None


def test_what_not_all_have_is_left_out_and_said():
    one = run_record(checkpoint_record([0.1] * 5), checkpoint_record([0.1] * 5, "late", 9))
    curves = [Curve("a", (one,), "test"), curve([0.1] * 4, "b")]
    comparison = compare(curves)
    assert [panel.layers for panel in comparison.panels] == [
        ("input", "layer1", "layer2", "logits")
    ]
    assert comparison.left_out == (
        "Checkpoint late is left out: b doesn't have it.",
        "untrained: 1 layers of a are left out: not all runs have them.",
    )


def test_one_checkpoint_and_steps_that_differ():
    late = checkpoint_record([0.2], "late", 9)
    one, other = (
        run_record(checkpoint_record([0.1]), replace(late, step=step)) for step in (9, 18)
    )
    curves = [Curve("a", (one,), "test"), Curve("b", (other,), "test")]
    (panel,) = compare(curves, checkpoint="late").panels
    assert (panel.name, panel.step) == ("late", None)


@pytest.mark.parametrize(
    ("other", "options", "message"),
    [
        (curve([0.1], "b", experiment="fig5"), {}, r"different experiments \(fig5, fig8\)"),
        (
            Curve("b", (run_record(checkpoint_record([0.1], "x")),), "test"),
            {},
            r"no checkpoint in common \(a: untrained; b: x\)",
        ),
        (Curve("b", (run_record(),), "test"), {}, r"in common \(a: untrained; b: none\)"),
        (
            Curve("b", (run_record(checkpoint_record([])),), "test"),
            {},
            r"no layer in common at checkpoint 'untrained' \(a: input; b: none",
        ),
        (curve([0.1], "b"), {"checkpoint": "y"}, "a has no checkpoint 'y'; it has: untrained"),
        (curve([0.1], "b"), {"published": load_published("fig8")}, "128 layers, but a run has"),
    ],
)
def test_errors(other, options, message):
    with pytest.raises(LinprobeError, match=message):
        compare([curve([0.1]), other], **options)


def test_nothing_published_for_a_checkpoint():
    run = run_record(
        checkpoint_record([0.1]), checkpoint_record([0.1], "trained", 7), experiment="fig5"
    )
    published = load_published("fig5")
    comparison = compare([Curve("a", (run,), "test")], published=published)
    assert [sorted(panel.published) for panel in comparison.panels] == [["layer"], []]
    with pytest.raises(LinprobeError, match=r"nothing is published for trained; .* 0 mini"):
        compare([Curve("a", (run,), "test")], published=published, checkpoint="trained")
