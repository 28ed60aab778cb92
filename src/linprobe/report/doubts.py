"""Says what a reader should doubt though probes are certified, in plain words."""

from collections.abc import Iterator, Sequence

from linprobe.records.schema import ProbeRecord, RunRecord
from linprobe.report.wording import MAX_NAMED, answers_one, plain
from linprobe.runtime.text import counted


def doubts(run: RunRecord) -> Iterator[str]:
    """Say what limits the probes though they are certified, and what to do about it."""
    probes = [probe for checkpoint in run.checkpoints for probe in checkpoint.probes]
    if edge := path_ended(run):
        yield edge
    if alike := one_answer(probes):
        yield alike
    if again := read_again(probes):
        yield again
    rounded = [probe for probe in probes if probe.rounded]
    if rounded:
        one = len(rounded) == 1
        text = (
            f"{counted(len(rounded), 'probe')}: what {'it uses' if one else 'they use'} varies "
            "little beyond the rounding of the activations, which "
            f"{'this error reflects' if one else 'these errors reflect'}."
        )
        if all(p.no_float64 is None and p.dtype != "float64" for p in rounded):
            text += " Activations in float64 can show what lies below it."
        yield text
        for reason in dict.fromkeys(p.no_float64 for p in rounded if p.no_float64):
            yield f"Not read in float64: {reason}."


def read_again(probes: Sequence[ProbeRecord]) -> str:
    """Say which probes were read in float64, and what they would be otherwise; "" for none."""
    found = [(probe, probe.native) for probe in probes if probe.native is not None]
    if not found:
        return ""
    names = list(dict.fromkeys(probe.layer for probe, _ in found))
    some = ", ".join(names[:MAX_NAMED]) + (" ..." if len(names) > MAX_NAMED else "")
    kinds = " or ".join(sorted({str(own.dtype) for _, own in found}))
    rates = [own.test_error_rate for _, own in found]
    ends = " to ".join(dict.fromkeys(map(plain, (min(rates), max(rates)))))
    return (
        f"{counted(len(found), 'probe')} ({some}) read a float64 pass of the network: what they "
        f"use of these layers drowns in the rounding of {kinds}, of which probes have test errors "
        f"of {ends}."
    )


def path_ended(run: RunRecord) -> str:
    """Say for which probes a penalty beyond the path may be better; "" where that is none."""
    probes = [probe for checkpoint in run.checkpoints for probe in checkpoint.probes]
    found = [probe for probe in probes if probe.l2_at_edge]
    if not found:
        return ""
    why = "the chosen penalty stands at an end of the l2 path"  # all that old runs know
    if any(probe.path for probe in found):
        by_error = run.config.method.choose_by == "error_rate"
        score = "error rate" if by_error else "cross-entropy"
        why = f"the l2 path ended while the held-out {score} still fell"
    advice = "Leave l2 out, so that the path goes on while that helps, or give a wider one; or take"
    if run.config.method.extend:
        advice = (
            "Smaller penalties can't be proven exactly in this arithmetic (exact=False tries "
            "them); it may suffice for fewer features (reduce), for activations in float64, or for"
        )
    return (
        f"{len(found):,} of {counted(len(probes), 'probe')} ({_some(found)}): {why}, so a better "
        "penalty may lie beyond it, and the error may be limited by the penalty rather than by "
        f"the layer. {advice} scale 'feature' where the sizes of the columns differ much."
    )


def _some(probes: Sequence[ProbeRecord]) -> str:
    named = ", ".join(probe.layer for probe in probes[:MAX_NAMED])
    return named + (" ..." if len(probes) > MAX_NAMED else "")


def one_answer(probes: Sequence[ProbeRecord]) -> str:
    """Say which probes answer one class for every test sample; "" where none does."""
    found = [probe for probe in probes if answers_one(probe)]
    if not found:
        return ""
    verb = "answers" if len(found) == 1 else "answer"
    return (
        f"{counted(len(found), 'probe')} ({_some(found)}) {verb} one class for every test sample, "
        "so the test error only counts the other classes; AUROC and average precision tell whether "
        "the scores rank."
    )
