"""What is printed during and after a run."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from linprobe.report.terminal import (
    auto_progress,
    make_console,
    print_sentence,
    print_summary,
    show_progress,
    summary_lines,
)
from linprobe.runtime.progress import Event
from tests.support.records import checkpoint_record, run_record, trained_run

EVENTS = [
    Event(0.1, "untrained", "solve", "conv1 (2/10), path: l2 1e-03", milestone=False),
    Event(0.2, "untrained", "solve", "[conv1] (2/10): test error 0.0700", milestone=True),
    Event(1.0, "trained", "solve", "logits (10/10): test error 0.0070", milestone=True),
]


def console(terminal=False):
    return Console(file=io.StringIO(), force_terminal=terminal, width=110, highlight=False)


def shown(terminal):
    target = console(terminal)
    with show_progress(target) as on_event:
        for event in EVENTS:
            on_event(event)
    return target.file.getvalue()


def printed(run):
    target = console()
    print_summary(target, run, "runs/x")
    return target.file.getvalue()


def test_sentences_break_between_words_in_terminals_and_never_in_files():
    words = "a sentence [with brackets] that is longer than twenty letters"
    for terminal in (True, False):
        target = Console(file=io.StringIO(), force_terminal=terminal, width=20, highlight=False)
        print_sentence(target, words)
        lines = target.file.getvalue().splitlines()
        assert " ".join(line.strip() for line in lines) == words
        assert (max(map(len, lines)) <= 20) is terminal


def test_files_get_a_plain_line_a_milestone():
    lines = shown(terminal=False).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("[ 20%] untrained: [conv1] (2/10): test error 0.0700 (about")
    assert lines[0].endswith("left)")
    assert lines[1] == "[100%] trained: logits (10/10): test error 0.0070"
    assert "\x1b" not in "".join(lines)


def test_files_get_a_sign_of_life_after_half_a_minute_without_a_milestone():
    target, times = console(), iter([0.0, 1.0, 32.0, 61.0, 63.0])
    with show_progress(target, clock=lambda: next(times)) as on_event:
        for event in (EVENTS[0], EVENTS[0], EVENTS[0], EVENTS[1]):
            on_event(event)
    lines = target.file.getvalue().splitlines()
    assert [line[:6] for line in lines] == ["[ 10%]", "[ 20%]"]
    assert "conv1 (2/10), path: l2 1e-03" in lines[0]


def test_terminals_get_a_live_line_and_milestones():
    output = shown(terminal=True)
    assert "\x1b[" in output
    assert "untrained: [conv1] (2/10): test error 0.0700" in output
    assert "trained: logits" in output
    assert "100%" in output


def shown_by_itself(*times, terminal=True, jupyter=False):
    """What is shown of an event at each of the times; the block begins at 0."""
    target = Console(file=io.StringIO(), force_terminal=terminal, force_jupyter=jupyter, width=110)
    clock = iter([0.0, *times, *[times[-1]] * 9])
    with auto_progress(target, clock=lambda: next(clock)) as on_event:
        for event in EVENTS[: len(times)]:
            on_event(event)
    return target.file.getvalue()


def test_short_calls_leave_no_trace():
    assert shown_by_itself(0.5, 1.0, 2.0) == ""


def test_long_calls_are_shown_from_the_first_event_after_two_seconds():
    output = shown_by_itself(0.5, 2.1)
    assert "untrained: [conv1] (2/10): test error 0.0700" in output
    assert "path: l2 1e-03" not in output
    assert "about 8 s left" in output  # 2.1 s for a fifth


def test_nothing_is_shown_where_nobody_looks():
    assert shown_by_itself(5.0, 9.0, terminal=False) == ""


def test_notebooks_are_shown_a_line_a_milestone(monkeypatch):
    lines = []
    monkeypatch.setattr(Console, "print", lambda self, text, **_: lines.append(text))
    shown_by_itself(5.0, 9.0, 9.5, terminal=False, jupyter=True)
    assert [line[:6] for line in lines] == ["[ 20%]", "[100%]"]


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_ends_when_the_run_fails(terminal):
    target = console(terminal)
    with pytest.raises(KeyboardInterrupt), show_progress(target) as on_event:
        on_event(EVENTS[0])
        raise KeyboardInterrupt
    if terminal:
        assert "\x1b[?25h" in target.file.getvalue(), "the cursor must come back"


def test_small_networks_get_a_full_table_a_checkpoint():
    output = printed(
        run_record(checkpoint_record([0.07, 0.02, 0.0123]), checkpoint_record([0.5], "b", 8590))
    )
    assert "untrained: 0 minibatches, network test error 0.9000" in output
    assert "b: 8,590 minibatches" in output
    row = next(line for line in output.splitlines() if "layer1" in line)
    for text in ("128", "1e-06", "0.0160", "0.0200", "0.0174-0.0229", "3.0e-05", "1.2"):
        assert text in row
    assert len(row.rstrip()) <= 80 - len("conv1_postpool") + len("layer1")
    assert "4 of 4 probes converged; largest duality gap 3.0e-05 nats." in output
    assert "Written to runs/x" in output
    assert "QUICK" not in output


def test_deep_networks_get_one_table_of_all_layers():
    rates = [0.001 * i for i in range(130)]
    checkpoints = [checkpoint_record(rates, name, step) for name, step in (("a", 0), ("b", 500))]
    output = printed(run_record(*checkpoints))
    assert all(f"layer{i} " in output for i in range(1, 129))
    row = next(line for line in output.splitlines() if "layer100 " in line)
    assert row.count("0.1000") == 2
    assert row.count("0.0800") == 2


def test_doubts_are_said():
    checkpoint = checkpoint_record([0.07, 0.02])
    bad = replace(checkpoint.probes[0], status="max_passes_reached", l2_at_edge=True, rounded=True)
    run = run_record(replace(checkpoint, probes=(bad, checkpoint.probes[1])), quick=True)
    output = printed(run)
    assert "0.0700 *" in output
    assert "0.0200 *" not in output
    lines = list(summary_lines(run, "x"))
    assert lines[0].startswith("1 of 2 probes converged")
    assert lines[1] == "NOT converged: 1 probes (max_passes_reached); marked *."
    assert lines[2].startswith("1 of 2 probes (input): the chosen penalty stands at an end of the")
    assert "Leave l2 out" in lines[2]
    assert lines[3].startswith("1 probe: what it uses varies little beyond the rounding")
    assert "not a result" in output


def test_trained_probes_are_no_alarm():
    run = trained_run("early_stop", "epoch_limit", "early_stop")
    output = printed(run)
    assert "*" not in output
    assert "epochs" in output
    lines = list(summary_lines(run, "x"))
    assert lines[0].startswith("Protocol sgd: 3 probes trained by SGD")
    assert lines[1] == "Ends: early_stop 2, epoch_limit 1."
    assert lines[2].startswith("Time")


def test_a_trained_probe_that_diverged_is_an_alarm():
    run = trained_run("early_stop", "diverged")
    assert "nan *" in printed(run)
    assert "NOT converged: 1 probes (diverged); marked *." in list(summary_lines(run, "x"))


def test_table_of_a_deep_network_names_the_protocol():
    output = printed(trained_run(*["early_stop"] * 30))
    assert "error rates of the probes, protocol sgd" in " ".join(output.split())


def test_times_and_memory_are_summed():
    run = run_record(checkpoint_record([0.1]), checkpoint_record([0.1], "b"), peak_rss_bytes=2**31)
    (line,) = [line for line in summary_lines(run, "x") if line.startswith("Time")]
    assert "train 2 s, extract 4 s, solve 6 s, evaluate 1 s" in line
    assert "peak memory 2.0 GiB" in line


def test_names_are_not_markup():
    checkpoint = checkpoint_record([0.07])
    odd = replace(checkpoint.probes[0], layer="[red]x[/red]")
    assert "[red]x[/red]" in printed(run_record(replace(checkpoint, probes=(odd,))))


def test_output_to_a_file_is_wide_enough(capsys):
    make_console().print("x" * 100)
    make_console(stderr=True).print("y" * 100)
    captured = capsys.readouterr()
    assert captured.out == "x" * 100 + "\n"
    assert captured.err == "y" * 100 + "\n"
