"""What sentences say, and that they say nothing else."""

import math
from dataclasses import replace

import pytest

from linprobe.report import wording
from linprobe.report.names import short_names, shorten
from tests.support.records import (
    checkpoint_record,
    evaluation_record,
    probe_record,
    run_config,
    run_record,
    step_record,
    trained_run,
)


def test_scientific_has_no_padded_exponent():
    assert wording.scientific(2.97e-5) == "3.0e-5"
    assert wording.scientific(1e-4, 0) == "1e-4"
    assert wording.scientific(12.0) == "1.2e1"
    assert wording.scientific(math.nan) == "unknown"


@pytest.mark.parametrize(
    ("tol", "asked"),
    [(1e-4, 1e-4), (1e-3, 1e-3), (math.nan, None)],
)
def test_tolerance_is_found_in_the_configuration(tol, asked):
    assert wording.tolerance(run_record(config=run_config(tol=tol))) == asked


def test_certificate_of_a_solved_probe():
    text = wording.certificate(probe_record(), 1e-4)
    assert text == "Certified: regularised loss within 3.0e-5 nats of the optimum."


def test_certificate_bounds_the_optimums_error():
    probe = probe_record(evaluation=evaluation_record())
    assert wording.certificate(probe, None).endswith(
        "nats of the optimum. The optimum's own test error is between 0.1250 and 0.3750."
    )
    same = evaluation_record(optimum_error_interval=(0.25, 0.25))
    text = wording.certificate(replace(probe, evaluation=same), None)
    assert text.endswith("nats of the optimum. The optimum has this very test error.")
    wide = evaluation_record(optimum_error_interval=(0.001, 0.98))
    text = wording.certificate(replace(probe, evaluation=wide), None)
    assert text.endswith("nats of the optimum. The optimum's own test error is not bounded.")
    unknown = evaluation_record(optimum_error_interval=None)
    text = wording.certificate(replace(probe, evaluation=unknown), None)
    assert text.endswith("nats of the optimum.")


def test_certificate_says_why_there_is_none():
    probe = probe_record(status="max_passes_reached", duality_gap=0.03)
    text = wording.certificate(probe, 1e-4)
    assert text.startswith("Not certified as asked: the budget of passes ran out first.")
    assert "within 3.0e-2 nats of the optimum" in text
    assert "(1e-4 was asked for)" in text
    assert "asked for" not in wording.certificate(probe, None)
    lost = probe_record(status="nonfinite_features", duality_gap=math.nan)
    text = wording.certificate(lost, 1e-4)
    assert text.startswith("No certificate: the features hold NaN or infinity")
    assert "says nothing about the layer" in text
    explained = replace(lost, reason="layer 'x' holds 3 NaN in row 7.")
    assert "No certificate: layer 'x' holds 3 NaN in row 7. This" in wording.certificate(
        explained, None
    )
    assert "status odd" in wording.certificate(probe_record(status="odd"), None)


def test_a_converged_probe_without_a_gap_is_not_certified():
    text = wording.certificate(probe_record(duality_gap=math.nan), 1e-4)
    assert text.startswith("No certificate")


def test_steps_are_counted_and_rises_named():
    steps = [
        step_record(0.01),
        step_record(0.9),
        step_record(0.01, verdict="rises", to_layer="fc1"),
    ]
    text = wording.steps_summary(steps)
    assert (
        "has 1 significant drop, 1 significant rise (at fc1) and 1 change that is not significant"
        in text
    )
    many = [step_record(0.01, verdict="rises", to_layer=f"fc{i}") for i in range(9)]
    assert "9 significant rises and 0 changes that are not" in wording.steps_summary(many)
    assert wording.steps_summary([]) == ""


def test_step_gives_counts_and_the_adjusted_p():
    assert wording.step(step_record(0.012)) == "falls (30 corrected, 10 broken, p = 0.012)"


def test_state_of_training():
    assert wording.state(checkpoint_record([0.1])) == "untrained"
    assert (
        wording.state(checkpoint_record([0.1], step=2000)) == "untrained, after 2,000 minibatches"
    )


def test_summary_counts_what_is_certified():
    checkpoint = checkpoint_record([0.1, 0.2])
    first, second = checkpoint.probes
    second = replace(second, status="precision_limit", duality_gap=0.5)
    text = wording.summary(run_record(replace(checkpoint, probes=(first, second))))
    assert text == (
        "1 of 2 probes are certified optima; their largest duality gap is 3.0e-5 nats. "
        "Lowest test error: 0.1000 at input."
    )


def test_a_certificate_of_rounded_activations_says_so():
    probe = probe_record(duality_gap=3e-5)
    words = " What it uses varies little beyond the rounding of its activations."
    assert wording.certificate(replace(probe, rounded=True), None).endswith(words)
    assert words not in wording.certificate(probe, None)


def test_shorten_keeps_both_ends():
    assert shorten("layer1", 6) == "layer1"
    short = shorten("begin" + "x" * 80 + "end", 12)
    assert len(short) == 12
    assert short.startswith("b")
    assert short.endswith("end")


BLOCKS = [f"encoder.layers.{i}.attention.output.dense.of.a.long.module.path.x" for i in range(12)]


@pytest.mark.parametrize(
    "names",
    [
        ["input", "conv1"],
        BLOCKS,
        ["a" * 80 + "x", "a" * 80 + "y", "a" * 80],
        ["q" * 30 + "1" + "z" * 30, "q" * 30 + "2" + "z" * 30],
        [f"{'b' * 30}{i // 10}{'c' * 30}{i % 10}{'d' * 30}" for i in range(40)],
    ],
)
def test_short_names_differ_where_names_do(names):
    short = short_names(names, 22)
    assert len(set(short)) == len(names)
    assert all(len(text) <= 22 for text in short)


def test_how_to_read_is_five_sentences():
    plain = wording.how_to_read(run_record(checkpoint_record([0.1, 0.2])))
    tested = wording.how_to_read(run_record(checkpoint_record([0.1, 0.2], steps=(step_record(),))))
    for text in (plain, tested):
        assert len(text) == 5
        assert all(sentence.endswith(".") and ". " not in sentence for sentence in text)
    assert "dotted" in tested[1]
    assert "dotted" not in plain[1]


def test_trained_probes_are_no_alarm():
    run = trained_run("early_stop", "epoch_limit", "converged", "diverged")
    early, limit, converged, diverged = run.checkpoints[0].probes
    assert wording.certificate(early, 1e-4) == (
        "Trained by SGD until its held-out cross-entropy stopped falling, not to an optimum: "
        "at l2 1e-6 its regularised loss is within 3.0e-2 nats of the optimum."
    )
    assert "until its last epoch, not" in wording.certificate(limit, 1e-4)
    assert wording.certificate(converged, 1e-4).startswith(
        "Certified: regularised loss within 3.0e-5 nats"
    )
    text = wording.certificate(diverged, 1e-4)
    assert text.startswith("No certificate: its training diverged.")
    outcomes = [wording.outcome(probe) for probe in run.checkpoints[0].probes]
    assert outcomes == [", early_stop", ", epoch_limit", "", ", NOT converged (diverged)"]


def test_a_gap_above_the_objective_bounds_nothing():
    text = wording.certificate(probe_record(status="early_stop", duality_gap=9e3), 1e-4)
    assert text.endswith("its duality gap (9.0e3 nats) exceeds that loss, and so bounds nothing.")
    unknown = wording.certificate(probe_record(status="early_stop", duality_gap=math.inf), 1e-4)
    assert "its duality gap (unknown nats) exceeds that loss" in unknown


def test_summary_of_trained_probes():
    run = trained_run("early_stop", "epoch_limit", "converged", "diverged")
    assert wording.summary(run) == (
        "Protocol sgd: 4 probes trained by SGD, for comparison with certified optima; at l2 1e-6 "
        "their duality gaps have a median of 3.0e-2 and a maximum of 3.0e-2 nats."
    )
    checkpoint = checkpoint_record([], probes=(probe_record(status="early_stop", duality_gap=9.0),))
    wide = wording.summary(run_record(checkpoint, protocol="sgd"))
    assert wide.endswith(" nats; 1 of them exceeds the regularised loss, and so bounds nothing.")
    lost = wording.summary(trained_run("diverged"))
    assert lost.endswith("for comparison with certified optima.")


def test_protocol_is_named_where_it_is_not_the_usual_one():
    certified, trained = run_record(checkpoint_record([0.1])), trained_run("early_stop")
    assert wording.title(certified) == "Linear probes: fig8, mnist"
    assert wording.title(trained) == "Linear probes: fig8, mnist, protocol sgd"
    assert (wording.passes(certified), wording.passes(trained)) == ("passes", "epochs")
    reading = wording.how_to_read(trained)
    assert len(reading) == 5
    assert "were trained by SGD" in reading[3]
    assert "not a failure" not in reading[3]
