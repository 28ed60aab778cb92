"""What is drawn, read back from the figures' own artists."""

import math
from dataclasses import replace

import matplotlib
import pytest
from matplotlib.colors import to_hex

from linprobe.report.plots import draw_run, figure5, figure8, save_figure, write_figure
from linprobe.report.style import BLUE, CONTROL_LOOKS, LIGHT, VERMILION
from linprobe.runtime.errors import LinprobeError
from tests.support.records import (
    checkpoint_record,
    control_record,
    dataset_record,
    probe_record,
    read_again,
    run_config,
    run_record,
    trained_run,
)

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


def keys(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_figure5_has_one_panel_with_a_key_and_a_title():
    run = run_record(checkpoint_record(RATES), config=run_config(recipe="paper"))
    figure = figure5(run, "untrained")
    (axes,) = figure.axes
    assert axes.get_title() == "untrained, paper recipe"
    assert axes.get_ylabel() == "test prediction error"
    assert keys(figure) == ["probe, certified optimum"]


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
        assert reference == run.dataset.majority_error_rate.error_rate(split)
    assert figure.axes[0].get_ylabel().startswith(split)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["untrained", "after 500 minibatches", "after 2,000 minibatches"]


def test_figure8_marks_the_skip_at_its_layer():
    figure = figure8(deep_run(10, config=run_config(skip_layer="layer6")))
    for axes in figure.axes:
        (mark,) = [t for t in axes.texts if "skip" in t.get_text()]
        assert mark.xy[0] == 6
    figure = figure8(deep_run(10, config=run_config()))
    assert not any("skip" in text for text in texts(figure))


def test_figure8_marks_probes_that_are_not_converged():
    checkpoint = with_status(checkpoint_record(RATES), 1, "precision_limit")
    checkpoint = with_status(checkpoint, 2, "nonfinite_features", test_error_rate=math.nan)
    figure = figure8(run_record(checkpoint))
    (axes,) = figure.axes
    assert bars(axes, VERMILION) == {1: RATES[1]}
    assert set(bars(axes, BLUE)) == {0, 3}
    (crosses,) = [line for line in axes.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert list(crosses.get_xdata()) == [2]
    assert keys(figure)[:2] == ["probe, certified optimum", "probe, not certified"]


def test_trained_probes_have_a_look_of_their_own_and_figures_say_the_protocol():
    run = trained_run("early_stop", "epoch_limit", "converged", config=run_config())
    figure = figure8(run)
    (axes,) = figure.axes
    assert list(bars(axes, LIGHT["purple"])) == [0, 1]
    assert list(bars(axes, BLUE)) == [2]
    assert bars(axes, VERMILION) == {}
    assert keys(figure)[:2] == ["probe, certified optimum", "probe, trained by SGD"]
    for drawn in (figure, figure5(run, "untrained")):
        assert drawn.get_suptitle().replace("\n", " ").endswith("seed 3, protocol sgd")
    assert "protocol" not in figure8(deep_run(4)).get_suptitle()


@pytest.mark.parametrize("depth", [2, 10, 30, 50, 128, 400])
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


def test_runs_are_drawn_as_suits_them():
    deep = deep_run(4)
    assert bars(draw_run(deep).axes[0], BLUE)
    one = draw_run(deep, "step500")
    assert [axes.get_title() for axes in one.axes] == ["after 500 minibatches"]
    assert not bars(one.axes[0], BLUE)
    steps = [checkpoint_record(RATES, f"step{i}", i) for i in range(5)]
    figure = draw_run(run_record(*steps, experiment="mine"), style="paper")
    assert len(figure.axes) == 5
    assert [bool(axes.get_ylabel()) for axes in figure.axes] == [True, False, False, True, False]
    with pytest.raises(LinprobeError, match="no checkpoint 'none'"):
        draw_run(deep, "none")
    with pytest.raises(LinprobeError, match="no checkpoints"):
        draw_run(run_record(experiment="mine"))


def test_panels_share_a_logarithmic_scale():
    wide = [checkpoint_record(RATES), checkpoint_record([0.5, 0.001], "trained", 9)]
    left, right = draw_run(run_record(*wide, experiment="mine")).axes
    assert left.get_yscale() == "log"
    assert left.get_ylim() == right.get_ylim()
    assert left.get_ylim()[0] < 0.001


def test_curves_of_a_run_hold_its_controls_and_the_papers_figure_its_probes():
    checkpoint = checkpoint_record(RATES, controls=(control_record(layer="input"),))
    run = run_record(
        checkpoint, experiment="mine", dataset=dataset_record(majority_error_rate=None)
    )
    assert draw_run(run).axes[0].get_ylim()[1] > 0.9
    assert figure5(run, "untrained").axes[0].get_ylim()[1] < 0.5


def test_titles_of_a_probe_report_are_left_to_it():
    run = run_record(checkpoint_record(RATES), experiment="probe")
    assert draw_run(run).axes[0].get_title() == ""


@pytest.mark.parametrize("style", ["paper", "slides"])
@pytest.mark.parametrize("layers", [1, 10, 130])
def test_styles_set_sizes_and_nothing_collapses(style, layers):
    names = ["b" * 76 + f"{i:04}" for i in range(layers)]
    controls = tuple(control_record(name, names[0]) for name in CONTROL_LOOKS)
    probes = tuple(probe_record(i, name, 0.001 + i / layers) for i, name in enumerate(names))
    checkpoint = checkpoint_record([], probes=probes, controls=controls)
    run = run_record(checkpoint, experiment="mine")
    figure = draw_run(run, style=style)  # a layout that fails would warn, which is an error
    (axes,) = figure.axes
    width, height = figure.get_size_inches()
    assert (width, height) == (13.33, 7.5) if style == "slides" else (width == 3.5)
    assert axes.get_position().height * height > 0.9
    size = axes.get_xticklabels()[0].get_fontsize()
    assert size == pytest.approx(13.5 if style == "slides" else 6.3)


def test_a_key_of_many_rows_makes_a_paper_figure_taller():
    plain = run_record(
        checkpoint_record(RATES),
        experiment="mine",
        dataset=dataset_record(majority_error_rate=None),
    )
    full = checkpoint_record(RATES, controls=tuple(control_record(name) for name in CONTROL_LOOKS))
    controlled = run_record(
        full, experiment="mine", dataset=dataset_record(majority_error_rate=None)
    )
    heights = [draw_run(run, style="paper").get_figheight() for run in (plain, controlled)]
    assert heights[1] > heights[0] + 0.2


@pytest.mark.parametrize("kind", ["pdf", "svg", "png"])
def test_files_are_vectors_with_their_glyphs(kind, tmp_path):
    run = run_record(checkpoint_record(RATES))
    for name in ("one", "two"):
        path = tmp_path / f"{name}.{kind}"
        write_figure(draw_run(run, style="paper"), path, kind, "paper")
    one, two = ((tmp_path / f"{name}.{kind}").read_bytes() for name in ("one", "two"))
    assert one == two
    if kind == "pdf":
        assert b"/FontFile2" in one  # a font program is there
        assert b"/Type3" not in one
        assert b"/Subtype /Image" not in one
    elif kind == "svg":
        assert b"<text" not in one  # text is outlines
        assert b"<image" not in one
    else:
        assert one.startswith(b"\x89PNG")


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    figure = figure5(run_record(checkpoint_record(RATES)), "untrained")
    with pytest.raises(LinprobeError, match=r"x\.pdf can't be written .* may write to"):
        write_figure(figure, tmp_path / "file" / "x.pdf", "pdf")


def test_a_figure_keeps_its_style_when_others_save_it(tmp_path):
    figure = draw_run(run_record(checkpoint_record(RATES)), "untrained", "slides")
    figure.savefig(tmp_path / "x.png")
    assert figure.axes[0].get_xticklabels()[0].get_fontsize() == pytest.approx(13.5)


def test_names_with_dollars_are_text():
    probes = (probe_record(0, r"$\bad{$"), probe_record(1, "a$b$c"))
    figure = figure5(run_record(checkpoint_record([], probes=probes)), "untrained")
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == [r"$\bad{$", "a$b$c"]


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


def test_figure8_shows_what_a_float32_network_sees_by_one_entry_of_the_key():
    run = deep_run(10)
    probed = tuple(read_again(item, ["layer4", "layer5"]) for item in run.checkpoints)
    found = keys(figure8(replace(run, checkpoints=probed)))
    assert found.count("probe of float32 activations") == 1
    assert "probe of float32 activations" not in keys(figure8(run))
