"""From a record to its chart: the rules of what is drawn, and how."""

import math
import statistics
from collections.abc import Iterator, Sequence

from linprobe.records.evidence import UNDECIDED, ControlRecord
from linprobe.records.schema import CheckpointRecord, ProbeRecord, RunRecord, Split
from linprobe.report.chart import GAP, Chart, Point, Series
from linprobe.report.measures import TEST_ERROR, TRAIN_ERROR, V_INFORMATION, Measure
from linprobe.report.style import (
    CHANGE,
    CONTROL_LOOKS,
    ENTROPY,
    LOST,
    NATIVE_LOOKS,
    NETWORK,
    NO_CHANGE,
    OPTIMUM,
    PROBE_LOOKS,
    Look,
)
from linprobe.report.wording import (
    passes,
    plain,
    scientific,
    span,
    whole,
)

_WIDE = 3  # Wilson intervals
_HALF = 0.4  # of a step of a line, which a single layer has too

Places = dict[str, int]


def build_chart(
    run: RunRecord,
    checkpoint: CheckpointRecord,
    measure: Measure = TEST_ERROR,
    layers: Sequence[str] | None = None,
) -> Chart:
    """Compute the chart of one measure of one checkpoint, on a linear scale.

    Args:
        run: for the data set, and for what is compared with.
        checkpoint: one of its checkpoints.
        measure: what is drawn.
        layers: names of all places of the axis; None: the checkpoint's own.
    """
    names = tuple(layers or (probe.layer for probe in checkpoint.probes))
    places = {layer: place for place, layer in enumerate(names)}
    series = [*references(run, checkpoint, measure, places)]
    if measure is TEST_ERROR:
        series += _optimum(checkpoint.probes, places)
    series += _curve(checkpoint, measure, places)
    series += _native(checkpoint.probes, measure, places)
    series += _probes(checkpoint.probes, measure, places)
    return Chart(
        layers=names,
        axis=measure.axis,
        series=tuple(series),
        floor=measure.floor(run),
        skip=places.get(run.config.experiment.skip_layer or ""),
        rising=measure.metric is not None and measure.metric.higher_is_better,
        optimum_is_close=optimum_is_close(run.checkpoints),
    )


def optimum_is_close(checkpoints: Sequence[CheckpointRecord]) -> bool:
    """Tell whether the ranges of the exact optimum are narrow enough to be worth drawing.

    The bound is rigorous, and at small `l2` wide: bars over half of the axis would hide the curve
    and say little. They are drawn if the median one is at most `_WIDE` Wilson intervals wide.
    """
    widths = []
    for probe in (probe for item in checkpoints for probe in item.probes):
        found = probe.evaluation.optimum_error_interval if probe.evaluation else None
        statistical = probe.test_error_ci95[1] - probe.test_error_ci95[0]
        if found is not None and statistical > 0:
            widths.append((found[1] - found[0]) / statistical)
    return bool(widths) and statistics.median(widths) <= _WIDE


def majority(run: RunRecord, split: Split) -> list[Series]:
    """List the majority-class baseline, if it is known."""
    rates, look = run.dataset.majority_error_rate, CONTROL_LOOKS["majority"]
    return [] if rates is None else [Series("reference", look, value=rates.error_rate(split))]


def references(
    run: RunRecord, checkpoint: CheckpointRecord, measure: Measure, places: Places
) -> Iterator[Series]:
    """Yield what a measure has to be compared with, in the order of drawing."""
    if measure is TRAIN_ERROR:
        yield from majority(run, "train")
    if measure.metric is not None:
        known_value = run.dataset.majority_metrics.get(measure.metric.name, math.nan)
        if math.isfinite(known_value):
            yield Series("reference", CONTROL_LOOKS["majority"], value=known_value)
    if measure is V_INFORMATION:
        known = [probe.evaluation for probe in checkpoint.probes if probe.evaluation]
        if known:
            yield Series("reference", ENTROPY, value=known[0].prior_entropy_bits)
    if measure is not TEST_ERROR:
        return
    if math.isfinite(checkpoint.network_test_error_rate):
        yield Series("reference", NETWORK, value=checkpoint.network_test_error_rate)
    names = dict.fromkeys(item.name for item in checkpoint.controls)
    if "majority" not in names:
        yield from majority(run, "test")
    for name in names:
        yield from _control(checkpoint, name, places)


def _control(checkpoint: CheckpointRecord, name: str, places: Places) -> Iterator[Series]:
    """Put its draws together: one value for all layers, or one for each layer, or both."""
    look = CONTROL_LOOKS.get(name, Look(name, "muted", (2, 2), "o"))
    draws: dict[str | None, list[ControlRecord]] = {}
    for item in checkpoint.controls:
        if item.name == name and math.isfinite(item.test_error_rate):
            draws.setdefault(item.layer, []).append(item)
    if None in draws:
        rates = [item.test_error_rate for item in draws[None]]
        yield Series("reference", look, value=statistics.fmean(rates), recorded=True)
    probed = {probe.layer for probe in checkpoint.probes}
    points = [
        _control_point(place, draws[layer])
        for layer, place in places.items()
        if layer in draws and layer in probed
    ]
    if points:
        yield Series("reference", look, tuple(points), recorded=True)


def _control_point(place: int, draws: Sequence[ControlRecord]) -> Point:
    rates = [item.test_error_rate for item in draws]
    ends = (min(rates), max(rates)) if len(rates) > 1 else (math.nan, math.nan)
    note = [f"mean of {len(rates)} ({span(ends)})"] if len(rates) > 1 else []
    gains = [item.selectivity for item in draws if item.selectivity is not None]
    if gains:
        note.append(f"selectivity {plain(statistics.fmean(gains))}")
    return Point(place, statistics.fmean(rates), *ends, tuple(note))


def _optimum(probes: Sequence[ProbeRecord], places: Places) -> list[Series]:
    """Bound the test error of the exact optimum."""
    points = [
        Point(places[probe.layer], math.nan, *probe.evaluation.optimum_error_interval)
        for probe in probes
        if probe.evaluation and probe.evaluation.optimum_error_interval
    ]
    return [Series("optimum", OPTIMUM, tuple(points))] if points else []


def _curve(checkpoint: CheckpointRecord, measure: Measure, places: Places) -> list[Series]:
    """Join layers by a solid line where the paired test finds a change, else by a dotted one."""
    tested = measure.steps(checkpoint)
    same = {step.to_layer for step in tested if step.verdict == UNDECIDED}
    points = [Point(places[p.layer], measure.value(p)) for p in checkpoint.probes]
    parts: dict[Look, list[Point]] = {CHANGE: [], NO_CHANGE: []}
    for before, after, probe in zip(points, points[1:], checkpoint.probes[1:], strict=False):
        parts[NO_CHANGE if probe.layer in same else CHANGE] += (before, after, GAP)
    return [Series("curve", look, tuple(found)) for look, found in parts.items() if found]


def _native(probes: Sequence[ProbeRecord], measure: Measure, places: Places) -> Iterator[Series]:
    """Draw what is seen in the network's own arithmetic, where the probes are of another."""
    steps: dict[Look, list[Point]] = {}
    for probe in probes:
        own, place = probe.native, places[probe.layer]
        value = math.nan if own is None else measure.value(own)
        look = NATIVE_LOOKS.get(str(own.dtype)) if own is not None else None
        if look is None or not math.isfinite(value):
            continue
        step = steps.setdefault(look, [])
        if step and step[-1].place < place - 1:
            step.append(GAP)
        step += [Point(place + side, value) for side in (-_HALF, 0, _HALF)]
    for look, step in steps.items():
        yield Series("reference", look, tuple(step), recorded=True)


def _probes(probes: Sequence[ProbeRecord], measure: Measure, places: Places) -> Iterator[Series]:
    """Group points by standing, the failed ones hollow, with crosses where there is no value."""
    groups: dict[Look, list[Point]] = {look: [] for look in PROBE_LOOKS.values()}
    groups[LOST] = []
    for probe in probes:
        value, ends = measure.value(probe), measure.interval(probe)
        look = PROBE_LOOKS[probe.standing] if math.isfinite(value) else LOST
        note = _value_note(probe, measure, value)
        groups[look].append(Point(places[probe.layer], value, *ends, note))
    for look, found in groups.items():
        if found:
            yield Series("lost" if look is LOST else "probes", look, tuple(found))


def _value_note(probe: ProbeRecord, measure: Measure, value: float) -> tuple[str, ...]:
    found = [f"{measure.label} {plain(value)}" if math.isfinite(value) else "no value"]
    if math.isfinite(measure.interval(probe)[0]):
        found.append(f"95 % interval {span(measure.interval(probe))}")
    if measure is TEST_ERROR and probe.evaluation and probe.evaluation.optimum_error_interval:
        found.append(f"exact optimum {span(probe.evaluation.optimum_error_interval)}")
    return tuple(found)


def probe_note(run: RunRecord, probe: ProbeRecord) -> tuple[str, ...]:
    """Say how a probe was fitted, in a few words a line."""
    edge = " (end of the path)" if probe.l2_at_edge else ""
    failed = ", NOT certified" if probe.standing == "failed" else ""
    return (
        f"l2 {scientific(probe.l2, 0)}{edge}",
        f"gap {scientific(probe.duality_gap)} nats{failed}",
        f"{whole(probe.num_passes)} {passes(run)}, width {whole(probe.num_features)}",
    )
