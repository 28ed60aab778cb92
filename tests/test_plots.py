"""What is drawn, read back from the figures' own artists."""

import math
from dataclasses import replace

import matplotlib
import pytest
from matplotlib.colors import to_hex
from records import checkpoint_record, run_record

from linprobe.errors import LinprobeError
from linprobe.report.plots import figure5, figure8, save_figure
from linprobe.report.style import BLUE, VERMILION

RATES = [0.08, 0.02, 0.03, 0.01]


def with_status(checkpoint, index, status, **changes):
    probes = list(checkpoint.probes)
    probes[index] = replace(probes[index], status=status, **changes)
    return replace(checkpoint, probes=tuple(probes))


def deep_run(depth, **changes):
    rates = [0.1 + 0.8 * i / (depth + 2) for i in range(depth + 2)]
    steps = (("untrained", 0), ("step500", 500), ("step2000", 2000))
    return run_record(*(checkpoint_record(rates, name, step) for name, step in steps), **changes)


def texts(figure):
    found = [text.get_text() for text in figure.texts]
    if figure._suptitle is not None:
        found.append(figure._suptitle.get_text())
    for axes in figure.axes:
        found += [text.get_text() for text in axes.texts]
    return found


def bars(axes, colour):
    return {
        round(b.get_x() + b.get_width() / 2): b.get_height()
        for b in axes.patches
        if to_hex(b.get_facecolor()) == colour.lower()
    }


def test_figure5_shows_rates_intervals_and_names():
    run = run_record(checkpoint_record(RATES))
    (axes,) = figure5(run, "untrained").axes
    line = axes.lines[0]
    assert list(line.get_ydata()) == RATES
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "input",
        "layer1",
        "layer2",
        "logits",
    ]
    segments = axes.containers[0].lines[2][0].get_segments()
    for segment, probe in zip(segments, run.checkpoints[0].probes, strict=True):
        assert tuple(segment[:, 1]) == pytest.approx(probe.test_error_ci95)
    assert axes.get_ylabel() == "test prediction error"
    assert axes.get_legend() is None


def test_figure5_scales_start_at_zero_and_hold_their_own_panel():
    run = run_record(checkpoint_record(RATES), checkpoint_record([0.01, 0.02], "trained", 8590))
    for checkpoint in run.checkpoints:
        low, high = figure5(run, checkpoint.name).axes[0].get_ylim()
        largest = max(probe.test_error_ci95[1] for probe in checkpoint.probes)
        assert low == 0
        assert largest < high < 1.5 * largest
    assert "8,590 minibatches" in figure5(run, "trained").axes[0].get_title()


def test_figure5_writes_each_value_at_its_point():
    found = texts(figure5(run_record(checkpoint_record(RATES)), "untrained"))
    assert [text for text in found if text.startswith("0.")] == [f"{rate:.4f}" for rate in RATES]


def test_figure5_marks_probes_that_are_not_converged():
    checkpoint = with_status(checkpoint_record(RATES), 1, "max_passes_reached")
    nowhere = (math.nan, math.nan)
    checkpoint = with_status(
        checkpoint, 2, "nonfinite_features", test_error_rate=math.nan, test_error_ci95=nowhere
    )
    (axes,) = figure5(run_record(checkpoint), "untrained").axes
    (crosses,) = [line for line in axes.lines if line.get_marker() == "x"]
    assert list(crosses.get_xdata()) == [1, 2]
    assert list(crosses.get_ydata()) == [RATES[1], 0]
    assert axes.get_legend().get_texts()[0].get_text() == "not converged"


def test_figure5_shows_the_network_only_where_it_fits():
    def drawn(rate):
        run = run_record(checkpoint_record(RATES, network_test_error_rate=rate))
        return any("own error" in text for text in texts(figure5(run, "untrained")))

    assert drawn(0.0073)
    assert not drawn(0.9)
    assert not drawn(math.nan)


@pytest.mark.parametrize("quick", [True, False])
def test_quick_runs_are_marked_on_every_panel(quick):
    run = deep_run(4, quick=quick)
    for figure in (figure5(run, "untrained"), figure8(run)):
        marks = [text for text in texts(figure) if text == "QUICK RUN"]
        assert len(marks) == (len(figure.axes) if quick else 0)
        assert any("not a result" in text for text in texts(figure)) is quick
        assert any("60,000 training" in text and "seed 3" in text for text in texts(figure))


@pytest.mark.parametrize("split", ["test", "train"])
def test_figure8_draws_the_split_that_was_asked_for(split):
    run = deep_run(4)
    figure = figure8(run, split)
    assert len(figure.axes) == 3
    for axes, checkpoint in zip(figure.axes, run.checkpoints, strict=True):
        rates = [getattr(p, f"{split}_error_rate") for p in checkpoint.probes]
        assert list(bars(axes, BLUE).values()) == pytest.approx(rates)
        assert axes.get_ylim() == (0, 1)
        reference = axes.lines[-1].get_ydata()[0]
        assert reference == run.dataset["majority_error_rate"][split]
    assert figure.axes[0].get_ylabel().startswith(split)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["untrained", "after 500 minibatches", "after 2,000 minibatches"]


def test_figure8_marks_the_skip_at_its_layer():
    figure = figure8(deep_run(10, config={"skip_layer": "layer6"}))
    for axes in figure.axes:
        (mark,) = [t for t in axes.texts if "skip" in t.get_text()]
        assert mark.xy[0] == 6
    figure = figure8(deep_run(10, config={}))
    assert not any("skip" in text for text in texts(figure))


def test_figure8_marks_probes_that_are_not_converged():
    checkpoint = with_status(checkpoint_record(RATES), 1, "precision_limit")
    checkpoint = with_status(checkpoint, 2, "nonfinite_features", test_error_rate=math.nan)
    figure = figure8(run_record(checkpoint))
    (axes,) = figure.axes
    assert bars(axes, VERMILION) == {1: RATES[1], 2: 0.0}
    assert set(bars(axes, BLUE)) == {0, 3}
    (crosses,) = [line for line in axes.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert list(crosses.get_xdata()) == [2]
    assert "probe, not converged" in [t.get_text() for t in figure.legends[0].get_texts()]


@pytest.mark.parametrize("depth", [2, 10, 30, 50, 128, 1000])
def test_bar_labels_are_few_and_true(depth):
    axes = figure8(deep_run(depth)).axes[0]
    ticks = dict(
        zip(axes.get_xticks(), (t.get_text() for t in axes.get_xticklabels()), strict=True)
    )
    assert ticks[0] == "input"
    assert ticks[depth + 1] == "logits"
    assert len(ticks) <= 12
    for place, name in ticks.items():
        if 0 < place <= depth:
            assert name.removeprefix("layer") == str(place)


def test_errors_say_what_is_missing():
    with pytest.raises(LinprobeError, match="split is 'validation'"):
        figure8(deep_run(2), "validation")
    with pytest.raises(LinprobeError, match="no checkpoints"):
        figure8(run_record())
    with pytest.raises(LinprobeError, match="no checkpoint 'trained'"):
        figure5(deep_run(2), "trained")
    with pytest.raises(LinprobeError, match="'empty' has no probes"):
        figure5(run_record(checkpoint_record([0.1], "empty", probes=())), "empty")


def test_saved_files_are_whole_and_reproducible(tmp_path):
    run = deep_run(4)
    paths = save_figure(figure8(run), tmp_path / "a.b")
    assert [path.name for path in paths] == ["a.b.png", "a.b.svg"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert paths[1].read_text().startswith("<?xml")
    again = save_figure(figure8(run), tmp_path / "again")
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in paths]
    assert len(list(tmp_path.iterdir())) == 4


def test_global_settings_are_left_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    save_figure(figure8(deep_run(3)), tmp_path / "x")
    assert dict(matplotlib.rcParams) == before
