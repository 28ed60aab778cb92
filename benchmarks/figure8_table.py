"""Tables of what `benchmarks.figure8_training` found, against the published bars."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.figure8_candidates import DEPTH, Candidate
from linprobe.records.published import load_published

STEPS = (0, 500, 2000)
BARS = (0, 1, 4, 8, 16, 32, 48, 64, 68, 80, 95, 112, 128)
"""Places along the published figure: bar i is layer i + 1, and the last one the logits."""

Bars = Mapping[str, Sequence[float]]
"""Published train error rates by the number of minibatches."""


def published_bars() -> dict[str, Sequence[float]]:
    """Bars 0 to 128 of each panel, by the number of minibatches."""
    panels = load_published("fig8").rates
    return {str(step): list(panel["layer"].values()) for step, panel in panels.items()}


def table(found: Mapping[str, Any], published: Bars) -> list[str]:
    """Markdown rows: error rates of the network, and mean distance of its probes to the bars.

    The last column is the mean height of the optima above the published bars, over all bars and
    steps, zero where they are below: what no optimiser of probes explains.
    """
    head = ["network", "error 500", "error 2,000"]
    head += [f"{half} {step:,}" for step in STEPS for half in ("lower", "upper")]
    rows = [[*head, "too high"]]
    for result in sorted(found.values(), key=lambda one: distance_to(one, published)):
        steps = result["steps"]
        cells = [Candidate(**result["candidate"]).label]
        cells += [_cell(steps[k]["network"] if k in steps else None) for k in ("500", "2000")]
        for step in map(str, STEPS):
            for upper in (False, True):
                half = [
                    abs(off) for bar, off in _off(result, step, published) if is_upper(bar) == upper
                ]
                cells.append(_cell(_mean(half)))
        above = [max(0.0, off) for step in steps for _, off in _off(result, step, published)]
        rows.append([*cells, _cell(_mean(above))])
    return _markdown(rows)


def probe_table(result: Mapping[str, Any], published: Bars) -> list[str]:
    """Markdown rows: train errors of one candidate's probes, certified and by minibatches.

    Args:
        result: of one candidate.
        published: bars by the number of minibatches.
    """
    bars = [bar for bar in result["bars"] if bar < DEPTH]
    rows = [["probes", *(f"bar {bar}" for bar in bars), "distance"]]
    for step in result["steps"]:
        title = f"{int(step):,} minibatches"
        aim = [published[step][bar] for bar in bars]
        rows.append([f"{title}: published", *map(_cell, aim), ""])
        for label, rates in _curves(result, step):
            off = _mean([abs(rate - bar) for rate, bar in zip(rates, aim, strict=False)])
            shown = list(map(_cell, rates[: len(bars)]))
            rows.append([label, *shown, _cell(off)])
    return _markdown(rows)


def _curves(result: Mapping[str, Any], step: str) -> Iterator[tuple[str, Sequence[float]]]:
    yield "certified", result["steps"][step]["probes"]
    for one in result.get("trained", ()):
        name, rate = one["probe"]
        if step in one["steps"] and (one["start"] == "cold" or step != "0"):
            label = f"{name} {rate:g}, {one['at_rest']:,} at rest"
            yield label + (", then along" * (one["start"] == "warm")), one["steps"][step]


def shift_table(published: Bars) -> list[str]:
    """Markdown rows: how like the lower half the published upper half is, untrained.

    Bar 64 + i is compared with bar i + shift, for i up to the plateau. If the skip brings the
    input, bar 64 is as far from it as bar 0 (shift 0); from layer 1 on, as bar 1 (shift 1).
    """
    bars, half = published["0"], DEPTH // 2
    rows = [["shift", "bar 64", "its like", "mean difference of bars 64 to 90"]]
    for shift in range(4):
        off = [abs(bars[half + i] - bars[i + shift]) for i in range(27)]
        rows.append([str(shift), _cell(bars[half]), _cell(bars[shift]), _cell(_mean(off))])
    return _markdown(rows)


def distance_to(result: Mapping[str, Any], published: Bars) -> float:
    """Mean absolute difference over both trained panels; infinite without the last."""
    if str(STEPS[-1]) not in result["steps"]:
        return float("inf")
    off = [abs(o) for step in STEPS[1:] for _, o in _off(result, str(step), published)]
    return sum(off) / len(off)


def is_upper(bar: int) -> bool:
    """The skip enters at bar 64."""
    return bar >= DEPTH // 2


def _off(result: Mapping[str, Any], step: str, published: Bars) -> list[tuple[int, float]]:
    """Bars that are compared, with the differences of their probes' train error rates."""
    if step not in result["steps"]:
        return []
    rates = zip(result["bars"], result["steps"][step]["probes"], strict=True)
    return [(bar, rate - published[step][bar]) for bar, rate in rates if bar in BARS]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    ruled = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return ["| " + " | ".join(cells) + " |" for cells in ruled]


def _cell(rate: float | None) -> str:
    return "" if rate is None else f"{rate:.3f}".lstrip("0")
