"""What runs show, beside what the paper says."""

from dataclasses import replace

import pytest

from linprobe.experiments.findings import finding, print_findings
from linprobe.records.evidence import RISES
from linprobe.records.store import save
from linprobe.runtime.errors import LinprobeError
from tests.support.records import (
    checkpoint_record,
    probe_record,
    run_config,
    run_record,
    step_record,
)

LAYERS = ("input", "conv1_preact", "conv1_postact", "fc1_preact", "logits")
GOOD = (0.08, 0.05, 0.02, 0.01, 0.005)


def figure5(before=GOOD, after=GOOD, rises=(), **changes):
    states = []
    for name, rates in (("untrained", before), ("trained", after)):
        probes = [probe_record(i, LAYERS[i], rate) for i, rate in enumerate(rates)]
        steps = tuple(step_record(to_layer=layer, verdict=RISES) for layer in rises)
        state = checkpoint_record((0.1,), name, step=len(states))
        states.append(replace(state, probes=tuple(probes), steps=steps))
    return run_record(*states, experiment="fig5", **changes)


def figure8(*ends, **changes):
    """Layers 2 (the end of the lower half) and the logits, at each checkpoint."""
    states = [
        checkpoint_record((0.08, 0.1, lower, 0.1, 0.2, upper), f"step{i}", step=1000 * i)
        for i, (lower, upper) in enumerate(ends)
    ]
    return run_record(*states, config=run_config(depth=4, skip_layer="layer3"), **changes)


def test_figure_5_as_the_paper_says():
    assert finding(figure5(rises=("fc1_preact",))) == (
        "fig5: as the paper says: untrained, probes are much better after the first ReLU (test "
        "error 0.0800 on the input, 0.0200 there); as the paper says: trained, the error falls "
        "from layer to layer but for fc1_preact (0.0800 on the input, 0.0050 at the logits, "
        "significant rises: fc1_preact)."
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"before": (0.08, 0.05, 0.041, 0.01, 0.005)}, "0.0410 there); as the paper says: tr"),
        (
            {"after": (0.08, 0.05, 0.02, 0.01, 0.09)},
            "0.0900 at the logits, significant rises: none",
        ),
        ({"rises": ("fc1_preact", "logits")}, "significant rises: fc1_preact, logits"),
        ({"after": (0.08, 0.05, 0.02, 0.01, float("nan"))}, "nan at the logits"),
    ],
)
def test_figure_5_unlike_the_paper(changes, said):
    line = finding(figure5(**changes))
    assert line.count("UNLIKE THE PAPER, which says: ") == 1 and said in line


def test_figure_8_as_the_paper_says():
    assert finding(figure8((0.7, 0.78), (0.75, 0.4), (0.66, 0.05))) == (
        "fig8: as the paper says: after 2,000 minibatches the upper half has learned (test error "
        "at logits 0.0500, untrained 0.7800); as the paper says: the lower half is left unused (at "
        "layer2 0.6600, untrained 0.7000)."
    )


@pytest.mark.parametrize(
    ("end", "words"), [((0.7, 0.4), "after 1,000 minib"), ((0.6, 0.1), "the lower half")]
)
def test_figure_8_unlike_the_paper(end, words):
    line = finding(figure8((0.7, 0.78), end))
    assert line.count("UNLIKE") == 1 and f"UNLIKE THE PAPER, which says: {words}" in line


def test_doubts_are_said():
    run = figure8((0.7, 0.78), (0.7, 0.1), quick=True, complete=False, protocol="sgd")
    ends = "; probes trained by SGD, which are no optima; UNFINISHED RUN; QUICK RUN, no result."
    assert finding(run).endswith(ends)
    probes = run.checkpoints[1].probes
    failed = (replace(probes[0], status="max_passes_reached"), *probes[1:])
    states = run.checkpoints[0], replace(run.checkpoints[1], probes=failed)
    assert "; 1 of 12 probes are NOT converged; probes" in finding(replace(run, checkpoints=states))
    for run in (figure8((0.7, 0.78)), replace(figure5(), checkpoints=())):
        assert "the trained network has not been probed" in finding(run)
    with pytest.raises(
        LinprobeError, match="'probe' has no published figure; expected one of: fig5"
    ):
        finding(replace(run, experiment="probe"))


def test_the_three_lines(tmp_path, capsys):
    save(figure5(), tmp_path / "fig5")
    save(figure8((0.7, 0.78), (0.7, 0.1)), tmp_path / "fig8")
    print_findings([tmp_path / "fig5", tmp_path / "fig8"])
    lines = capsys.readouterr().out.splitlines()
    assert [line[:5] for line in lines] == ["fig5:", "fig8:", "Repor"]
    pages = ", ".join(str(tmp_path / name / "report.html") for name in ("fig5", "fig8"))
    assert lines[2] == f"Reports: {pages}"
