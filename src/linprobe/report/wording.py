"""Plain words for what a record says: the same in the report, in figures and in the terminal."""

import math
import statistics
from collections.abc import Sequence

from linprobe.records.evidence import FALLS, RISES, DepthStep, MetricStep
from linprobe.records.schema import CheckpointRecord, ProbeRecord, RunRecord, Split
from linprobe.report.names import shorten
from linprobe.runtime.text import counted

_REASONS = {
    "max_passes_reached": "the budget of passes ran out first",
    "precision_limit": "the arithmetic could compute no further decrease",
    "nonfinite_features": "the features hold NaN or infinity, so there is no problem to solve",
    "diverged": "its training diverged",
    "degenerate_labels": "all training labels are of one class, so there is nothing to separate",
}

_ENDS = {
    "early_stop": "its held-out cross-entropy stopped falling",
    "epoch_limit": "its last epoch",
}

MAX_NAMED = 3
"""Probes that are named where there are more."""

_OPEN = 0.5  # width of an interval of error rates that tells nothing


def scientific(value: float, digits: int = 1) -> str:
    """Write a number such as 3.0e-5, without the zero that Python puts into exponents."""
    if not math.isfinite(value):
        return "unknown"
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def plain(value: float | None) -> str:
    """Write a number with four decimals; "none" where it is unknown."""
    return "none" if value is None or not math.isfinite(value) else f"{value:z.4f}"


def span(ends: tuple[float, float] | None) -> str:
    """Write an interval; "none" where it is unknown."""
    if ends is None or not all(map(math.isfinite, ends)):
        return "none"
    return f"{plain(ends[0])}\N{EN DASH}{plain(ends[1])}"


def whole(value: float) -> str:
    """Write a number without decimals; "none" where it is unknown."""
    return f"{value:,.0f}" if math.isfinite(value) else "none"


def tolerance(run: RunRecord) -> float | None:
    """Read the duality gap in nats that the run asked for; None: unknown."""
    tol = run.config.method.tol
    return tol if math.isfinite(tol) else None


def certificate(probe: ProbeRecord, tol: float | None) -> str:
    """Say what is guaranteed about a probe, in one or two sentences."""
    gap = probe.duality_gap
    if probe.converged and math.isfinite(gap):
        text = f"Certified: regularised loss within {scientific(gap)} nats of the optimum."
        return (
            text
            + _flips(probe)
            + answers_one(probe) * " It answers one class for every test sample."
            + probe.rounded * " What it uses varies little beyond the rounding of its activations."
            + _own_reading(probe)
        )
    if probe.standing == "trained":
        return _as_trained(probe)
    reason = probe.reason or _REASONS.get(probe.status, f"status {probe.status}")
    if not math.isfinite(gap):
        return f"No certificate: {reason.rstrip('.')}. This value says nothing about the layer."
    asked = f" ({scientific(tol, 0)} was asked for)" if tol is not None else ""
    return (
        f"Not certified as asked: {reason}. Its regularised loss is within {scientific(gap)} "
        f"nats of the optimum{asked}.{_flips(probe)}"
    )


def short_certificate(probe: ProbeRecord) -> str:
    """Say it in few words where all is as it was asked for; else what is wrong."""
    if probe.converged and math.isfinite(probe.duality_gap) and not probe.rounded:
        read = f", read in {probe.dtype}" if probe.native else ""
        return "certified" + ", answers one class" * answers_one(probe) + read
    return "trained by SGD" if probe.standing == "trained" else certificate(probe, None)


def _as_trained(probe: ProbeRecord) -> str:
    gap = scientific(probe.duality_gap)
    # A cross-entropy is never negative, so a larger gap bounds nothing.
    bound = (
        f"its regularised loss is within {gap} nats of the optimum"
        if probe.duality_gap < probe.objective
        else f"its duality gap ({gap} nats) exceeds that loss, and so bounds nothing"
    )
    return (
        f"Trained by SGD until {_ENDS[probe.status]}, not to an optimum: at l2 "
        f"{scientific(probe.l2, 0)} {bound}."
    )


def outcome(probe: ProbeRecord) -> str:
    """Say how a fit ended, to be put after its numbers; "" where it converged."""
    if probe.converged:
        return ""
    trained = probe.standing == "trained"
    return f", {probe.status}" if trained else f", NOT converged ({probe.status})"


def _flips(probe: ProbeRecord) -> str:
    """Say how far the test error of the exact optimum can be from the one that is shown."""
    found = probe.evaluation
    if found is None or found.optimum_error_interval is None:
        return ""
    low, high = found.optimum_error_interval
    if low == high:
        return " The optimum has this very test error."
    if high - low > _OPEN:
        return " The optimum's own test error is not bounded."
    return f" The optimum's own test error is between {low:.4f} and {high:.4f}."


def exactness(probes: Sequence[ProbeRecord]) -> str:
    """Count the probes whose test error is that of the exact optimum; "" where that is unknown."""
    left = [p.evaluation.num_undecided for p in probes if p.evaluation]
    known = [count for count in left if count is not None]
    if not known:
        return ""
    exact = known.count(0)
    said = f"The test error of {exact:,} of {len(known):,} probes is that of the exact optimum"
    if exact == len(known):
        return said + "."
    return f"{said}; of the others, it may differ on {max(known):,} test samples at most."


def step(found: DepthStep | MetricStep) -> str:
    """Say how a layer compares with the one before it, by the paired test."""
    if isinstance(found, MetricStep):
        return f"{found.verdict} (by {found.change:+.4f}, p = {found.p_holm:.2g})"
    numbers = f"{found.num_fixed:,} corrected, {found.num_broken:,} broken"
    return f"{found.verdict} ({numbers}, p = {found.p_holm:.2g})"


def steps_summary(steps: Sequence[DepthStep | MetricStep], what: str = "test error") -> str:
    """Count the significant changes of `what` along the depth; "" without steps."""
    if not steps:
        return ""
    falls = sum(item.verdict == FALLS for item in steps)
    rises = sum(item.verdict == RISES for item in steps)
    rising = [shorten(item.to_layer, 40) for item in steps if item.verdict == RISES]
    where = f" (at {', '.join(rising)})" if 1 <= rises <= MAX_NAMED else ""
    test = "exact McNemar test on the same samples"
    if isinstance(steps[0], MetricStep):
        delong = "DeLong's paired test" if steps[0].metric == "auroc" else "paired bootstrap"
        test = f"{delong} on the same samples"
    return (
        f"Between consecutive layers, the {what} has {counted(falls, 'significant drop')}, "
        f"{counted(rises, 'significant rise')}{where} and "
        f"{counted(len(steps) - falls - rises, 'change')} that "
        f"{'is' if len(steps) - falls - rises == 1 else 'are'} not significant "
        f"({test}, Holm-adjusted, 5 %)."
    )


def state(checkpoint: CheckpointRecord) -> str:
    """Name a checkpoint, with how long the network had been trained."""
    if checkpoint.step == 0:
        return checkpoint.name
    return f"{checkpoint.name}, after {checkpoint.step:,} minibatches"


def panel_title(name: str, step: int | None) -> str:
    """Title a panel of a figure: the minibatches of training, or the checkpoint's name."""
    return f"after {step:,} minibatches" if step else name


def curve_title(run: RunRecord, checkpoint: CheckpointRecord) -> str:
    """Title a curve with its checkpoint, and with the recipe of the network's training."""
    if not run.is_experiment:
        return ""
    recipe = run.config.experiment.recipe
    return panel_title(checkpoint.name, checkpoint.step) + (f", {recipe} recipe" if recipe else "")


def protocol(run: RunRecord) -> str:
    """Name the protocol, to be put after what was probed; "" where it is the usual one."""
    return "" if run.protocol == "certified" else f", protocol {run.protocol}"


def passes(run: RunRecord) -> str:
    """Name what a probe's `num_passes` counts."""
    return "epochs" if run.protocol == "sgd" else "passes"


def title(run: RunRecord) -> str:
    """Say what was probed."""
    if not run.is_experiment:
        return f"Linear probes of {run.config.extraction.network or 'the layers'}"
    return f"Linear probes: {run.experiment}, {run.dataset.name}{protocol(run)}"


def _own_reading(probe: ProbeRecord) -> str:
    if (own := probe.native) is None:
        return ""
    return (
        " It reads a float64 pass of the network: what it uses of this layer drowns in the "
        f"rounding of {own.dtype}, of which a probe has test error {plain(own.test_error_rate)}."
    )


def answers_one(probe: ProbeRecord) -> bool:
    """Tell whether a probe answers one class for every test sample."""
    return probe.evaluation is not None and probe.evaluation.answers_only is not None


def least_rate(run: RunRecord, split: Split = "test") -> float:
    """Give half a sample: less than any rate but zero, for logarithmic scales."""
    samples = run.dataset.num_test if split == "test" else run.dataset.num_train
    return 0.5 / samples if samples > 0 else 1e-5


def summary(run: RunRecord) -> str:
    """Say how many probes are certified, how well, and which layer has the lowest error."""
    probes = [probe for checkpoint in run.checkpoints for probe in checkpoint.probes]
    if run.protocol == "sgd":
        return as_trained_summary(probes)
    sure = sum(probe.converged for probe in probes)
    gaps = [p.duality_gap for p in probes if p.converged and math.isfinite(p.duality_gap)]
    largest = f"; their largest duality gap is {scientific(max(gaps))} nats" if gaps else ""
    text = f"{sure:,} of {len(probes):,} probes are certified optima{largest}."
    best = best_probe(run)
    if best is not None:
        where = f" ({run.checkpoints[-1].name})" if len(run.checkpoints) > 1 else ""
        text += f" Lowest test error: {best.test_error_rate:.4f} at {best.layer}{where}."
    return text


def as_trained_summary(probes: Sequence[ProbeRecord]) -> str:
    """Say what is known of probes that were trained by minibatches."""
    text = (
        f"Protocol sgd: {counted(len(probes), 'probe')} trained by SGD, for comparison with "
        "certified optima"
    )
    gaps = [probe.duality_gap for probe in probes if math.isfinite(probe.duality_gap)]
    if gaps:
        l2 = scientific(max(probe.l2 for probe in probes if math.isfinite(probe.l2)), 0)
        empty = sum(probe.duality_gap >= probe.objective for probe in probes)
        text += (
            f"; at l2 {l2} their duality gaps have a median of "
            f"{scientific(statistics.median(gaps))} and a maximum of {scientific(max(gaps))} nats"
        )
        if empty:
            verbs = ("exceeds", "bounds") if empty == 1 else ("exceed", "bound")
            text += (
                f"; {empty:,} of them {verbs[0]} the regularised loss, and so {verbs[1]} nothing"
            )
    return text + "."


def how_to_read(run: RunRecord) -> tuple[str, str, str, str, str]:
    """Explain a probe curve in five sentences to a reader who has never seen one."""
    tested = any(checkpoint.steps for checkpoint in run.checkpoints)
    interval = (
        "A bar is a 95 % interval from the test samples alone: Wilson's of an error, DeLong's of "
        "AUROC, by the bootstrap of other metrics"
    )
    return (
        "Each point is a linear classifier trained on nothing but the frozen features of one "
        "layer: the lower its error, or the higher its AUROC, the better planes separate the "
        "classes at that depth.",
        f"{interval}; between neighbouring layers, a solid line marks a significant change "
        "(paired test on the same samples), a dotted one no significant change."
        if tested
        else f"{interval}; layers are tested on the same samples, so overlapping bars alone do "
        "not make two layers equal.",
        "Dashed lines are baselines, such as the error of always predicting the most frequent "
        "class: a probe near them has found little.",
        "These probes were trained by SGD, so a high error can be a fact about the layer or a "
        "failure of the optimiser: the certificate, at a small penalty l2, bounds how far each "
        "loss is above its minimum."
        if run.protocol == "sgd"
        else "The certificate bounds how far each probe's loss is above its minimum for the chosen "
        "penalty l2, so a high error is a fact about the layer and not a failure of the optimiser.",
        "A low error does not show that the network itself uses what a probe can read, nor that "
        "other data, another penalty or a nonlinear probe would give the same error.",
    )


def best_probe(run: RunRecord) -> ProbeRecord | None:
    """Find the probe of the lowest test error at the last checkpoint; None: none is known."""
    probes = run.checkpoints[-1].probes if run.checkpoints else ()
    known = [probe for probe in probes if math.isfinite(probe.test_error_rate)]
    return min(known, key=lambda probe: probe.test_error_rate, default=None)


def samples_note(run: RunRecord) -> str:
    """Name the data set and its size."""
    data = run.dataset
    return f"{data.name}, {data.num_train:,} training and {data.num_test:,} test samples"
