"""Plain words for what a record says: the same in the report, in figures and in the terminal."""

import math
import statistics
from collections.abc import Sequence

from linprobe.records.evidence import FALLS, RISES, DepthStep
from linprobe.records.schema import CheckpointRecord, ProbeRecord, RunRecord

_REASONS = {
    "max_passes_reached": "the budget of passes ran out first",
    "precision_limit": "the arithmetic could compute no further decrease",
    "nonfinite_features": "the features hold NaN or infinity, so there is no problem to solve",
    "diverged": "its training diverged",
    "degenerate_labels": "all training labels are of one class, so there is nothing to separate",
}

_ENDS = {
    "early_stop": "its held-out cross-entropy stopped falling",
    "epoch_limit": "the epochs that it was given ran out",
}

_MAX_NAMED = 3
_OPEN = 0.5  # width of an interval of error rates that tells nothing
_MIDDLE = "\N{HORIZONTAL ELLIPSIS}"


def scientific(value: float, digits: int = 1) -> str:
    """A number such as 3.0e-5, without the zero that Python puts into exponents."""
    if not math.isfinite(value):
        return "unknown"
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def tolerance(run: RunRecord) -> float | None:
    """The duality gap in nats that the run asked for; None: its configuration doesn't say."""
    tol = run.config.method.tol
    return tol if math.isfinite(tol) else None


def certificate(probe: ProbeRecord, tol: float | None) -> str:
    """What is guaranteed about a probe, in one or two sentences."""
    gap = probe.duality_gap
    if probe.converged and math.isfinite(gap):
        text = f"Certified: at most {scientific(gap)} nats above the exact minimum{_flips(probe)}."
        return text + probe.rounded * " Its activations vary little beyond their own rounding."
    if probe.standing == "trained":
        return _as_trained(probe)
    reason = _REASONS.get(probe.status, f"status {probe.status}")
    if not math.isfinite(gap):
        return f"No certificate: {reason}. This value tells nothing about the layer."
    asked = f" ({scientific(tol, 0)} was asked for)" if tol is not None else ""
    return (
        f"Not certified as asked: {reason}. The objective is at most {scientific(gap)} nats "
        f"above the exact minimum{_flips(probe)}{asked}."
    )


def _as_trained(probe: ProbeRecord) -> str:
    gap = scientific(probe.duality_gap)
    # A cross-entropy is never negative, so a larger gap bounds nothing.
    bound = (
        f"the objective is at most {gap} nats above the exact minimum"
        if probe.duality_gap < probe.objective
        else f"the duality gap ({gap} nats) is above the whole objective, and so bounds nothing"
    )
    return (
        f"Trained by minibatches until {_ENDS[probe.status]}, not to an optimum: with l2 "
        f"{scientific(probe.l2, 0)} {bound}."
    )


def outcome(probe: ProbeRecord) -> str:
    """How a fit ended, to be put after its numbers; "" where it converged."""
    if probe.converged:
        return ""
    trained = probe.standing == "trained"
    return f", {probe.status}" if trained else f", NOT converged ({probe.status})"


def _flips(probe: ProbeRecord) -> str:
    """How far the test error of the exact optimum can be from the one that is shown."""
    found = probe.evaluation
    if found is None or found.optimum_error_interval is None:
        return ""
    low, high = found.optimum_error_interval
    if low == high:
        return ", which has this very test error"
    if high - low > _OPEN:
        return ", whose test error this gap leaves open"
    return f", whose test error is between {low:.4f} and {high:.4f}"


def step(found: DepthStep) -> str:
    """The paired comparison of a layer with the one before it."""
    numbers = f"{found.num_fixed:,} put right, {found.num_broken:,} put wrong"
    return f"{found.verdict} ({numbers}, p = {found.p_holm:.2g})"


def steps_summary(steps: Sequence[DepthStep]) -> str:
    """Where the error falls, rises, or can't be told along the depth; "" without steps."""
    if not steps:
        return ""
    falls = sum(item.verdict == FALLS for item in steps)
    rises = sum(item.verdict == RISES for item in steps)
    rising = [shorten(item.to_layer, 40) for item in steps if item.verdict == RISES]
    where = f" (at {', '.join(rising)})" if 1 <= rises <= _MAX_NAMED else ""
    return (
        f"From layer to layer the test error falls at {falls} of {len(steps)} steps, rises at "
        f"{rises}{where}, and can't be told at {len(steps) - falls - rises} (exact McNemar test "
        "on the same samples, Holm-adjusted, 5 %)."
    )


def state(checkpoint: CheckpointRecord) -> str:
    """A checkpoint's name, with how long the network had been trained."""
    if checkpoint.step == 0:
        return checkpoint.name
    return f"{checkpoint.name}, after {checkpoint.step:,} minibatches"


def protocol(run: RunRecord) -> str:
    """The protocol, to be put after what was probed; "" where it is the usual one."""
    return "" if run.protocol == "certified" else f", protocol {run.protocol}"


def passes(run: RunRecord) -> str:
    """What a probe's `num_passes` counts."""
    return "epochs" if run.protocol == "sgd" else "passes"


def title(run: RunRecord) -> str:
    """What was probed."""
    if not run.is_experiment:
        return f"Linear probes of {run.config.extraction.network or 'the layers'}"
    return f"Linear probes: {run.experiment}, {run.dataset.name}{protocol(run)}"


def notes(run: RunRecord) -> tuple[str, ...]:
    """What the run itself found unusual, a sentence each."""
    return run.config.notes


def least_rate(run: RunRecord, split: str = "test") -> float:
    """Half a sample: less than the least error rate that is not zero; for logarithmic scales."""
    samples = run.dataset.num_test if split == "test" else run.dataset.num_train
    return 0.5 / samples if samples > 0 else 1e-5


def shorten(text: str, length: int) -> str:
    """At most `length` characters, with both ends kept: layers differ in either."""
    if len(text) <= length:
        return text
    tail = (length - 1) * 3 // 5
    return text[: length - 1 - tail] + _MIDDLE + text[-tail:]


def short_names(names: Sequence[str], length: int) -> list[str]:
    """Names of at most `length` characters, different ones where the names are.

    Long names that would look alike are cut around the first place where they differ.
    """
    short = [shorten(name, length) for name in names]
    for place, name in enumerate(names):
        alike = [other for other in names if shorten(other, length) == shorten(name, length)]
        letters = zip(*alike, strict=False)
        common = next((i for i, found in enumerate(letters) if len(set(found)) > 1), 0)
        if common:
            begin = max(0, common - length // 3)
            end = begin + length - 2
            short[place] = _MIDDLE + name[begin:end] + (_MIDDLE if end < len(name) else "")
    return [
        f"{text[: length - 6]} #{place}" if short.count(text) > 1 else text
        for place, text in enumerate(short)
    ]


def summary(run: RunRecord) -> str:
    """How many probes are certified, and how well."""
    probes = [probe for checkpoint in run.checkpoints for probe in checkpoint.probes]
    if run.protocol == "sgd":
        return as_trained_summary(probes)
    sure = sum(probe.converged for probe in probes)
    gaps = [p.duality_gap for p in probes if p.converged and math.isfinite(p.duality_gap)]
    largest = f"; their largest duality gap is {scientific(max(gaps))} nats" if gaps else ""
    return f"{sure:,} of {len(probes):,} probes are certified optima{largest}."


def as_trained_summary(probes: Sequence[ProbeRecord]) -> str:
    """What is known of probes that were trained by minibatches."""
    text = (
        f"Protocol sgd: {len(probes):,} probes, trained as is usual and left as the optimiser "
        "left them, for comparison with certified optima"
    )
    gaps = [probe.duality_gap for probe in probes if math.isfinite(probe.duality_gap)]
    if gaps:
        l2 = scientific(max(probe.l2 for probe in probes if math.isfinite(probe.l2)), 0)
        empty = sum(probe.duality_gap >= probe.objective for probe in probes)
        text += (
            f"; with l2 {l2} their duality gaps have a median of "
            f"{scientific(statistics.median(gaps))} and a maximum of {scientific(max(gaps))} nats"
        )
        text += f"; {empty:,} are above the whole objective, and so bound nothing" if empty else ""
    return text + "."


def how_to_read(run: RunRecord) -> tuple[str, str, str, str, str]:
    """Five sentences for a reader who has never seen a probe curve."""
    tested = any(checkpoint.steps for checkpoint in run.checkpoints)
    interval = "A bar is the 95 % Wilson interval that sampling the test set leaves around an error"
    return (
        "Each point is a linear classifier trained on nothing but the frozen features of one "
        "layer: the lower its error, the better planes separate the classes at that depth.",
        f"{interval}; between neighbouring layers, a solid line means that a paired test on the "
        "same samples finds a change, a dotted one that it finds none."
        if tested
        else f"{interval}; layers are tested on the same samples, so overlapping bars alone do "
        "not make two layers equal.",
        "Broken lines are what a probe has to be compared with, such as the error of always "
        "saying the commonest class: a probe near them has found little.",
        "These probes are as the usual optimiser left them, so a high error can be a fact about "
        "the layer or a failure of the optimiser: the certificate, for a small penalty l2, bounds "
        "how far each training objective is above the exact minimum."
        if run.protocol == "sgd"
        else "The certificate bounds how far each probe's training objective is above the exact "
        "minimum for its penalty l2, so a high error is a fact about the layer and not a failure "
        "of the optimiser.",
        "It does not say that the network itself uses what a probe can read, nor that other "
        "data, another penalty or a nonlinear probe would give the same error.",
    )
