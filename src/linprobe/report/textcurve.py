"""A small curve of letters, for terminals: test error along the depth.

Braille letters hold 2 x 4 dots each, which makes a line of some 40 levels in ten rows; where they
can't be shown, an asterisk stands for each letter that the line passes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from linprobe.records.schema import CheckpointRecord, RunRecord
from linprobe.report import wording
from linprobe.report.references import Scale, fitting_scale

HEIGHT = 9  # odd: the middle row stands for the middle of the scale
_LABEL = 7  # letters of the numbers at the axis
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a Braille letter, (row, side)
_BRAILLE = 0x2800
_TOPS = (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 7, 8, 10)  # of a linear scale, times a power of ten


@dataclass(frozen=True)
class _Axis:
    """Scale of the error, from `low` at the foot to `high` at the top."""

    scale: Scale
    low: float
    high: float

    def height(self, rate: float) -> float:
        """From 0 at the foot to 1 at the top."""
        if self.scale == "linear":
            return (rate - self.low) / (self.high - self.low)
        rate = max(rate, self.low)
        return math.log(rate / self.low) / math.log(self.high / self.low)

    def rate(self, height: float) -> float:
        """What stands at a height; the inverse of `height`."""
        if self.scale == "linear":
            return self.low + height * (self.high - self.low)
        return self.low * math.exp(height * math.log(self.high / self.low))


def text_curves(run: RunRecord, *, width: int, braille: bool = True) -> list[str]:
    """Draw each checkpoint; all have the same scale.

    Args:
        run: the record.
        width: of the lines, in letters.
        braille: whether such letters can be shown.

    Returns:
        The lines; none if no probe has a test error. "x" marks a probe that isn't what its
        protocol asks for.
    """
    axis = _axis(run)
    if axis is None:
        return []
    lines = []
    for checkpoint in run.checkpoints:
        scale = ", logarithmic scale" if axis.scale == "log" else ""
        lines += [f"test error, {wording.state(checkpoint)}{scale}"]
        lines += _curve(checkpoint, axis, max(width - _LABEL - 2, 10), braille=braille)
        lines += [" " * (_LABEL + 2) + _ends(checkpoint, max(width - _LABEL - 2, 10)), ""]
    return lines


def _axis(run: RunRecord) -> _Axis | None:
    rates = [
        probe.test_error_rate
        for checkpoint in run.checkpoints
        for probe in checkpoint.probes
        if math.isfinite(probe.test_error_rate)
    ]
    if not rates:
        return None
    high = max(*rates, wording.least_rate(run))
    if fitting_scale(run, run.checkpoints, alone=True) == "linear":
        return _Axis("linear", 0.0, _rounded_up(high))
    low = min(rate if rate > 0 else wording.least_rate(run) for rate in rates)
    return _Axis("log", low, high)


def _rounded_up(rate: float) -> float:
    """The least rate of few digits that is not below a positive one."""
    power = 10.0 ** math.floor(math.log10(rate))
    return next(top * power for top in _TOPS if top * power >= rate * (1 - 1e-9))


def _curve(checkpoint: CheckpointRecord, axis: _Axis, width: int, *, braille: bool) -> list[str]:
    rates = [probe.test_error_rate for probe in checkpoint.probes]
    letters = _letters(rates, axis, width, braille=braille)
    for place, probe in enumerate(checkpoint.probes):
        if probe.standing == "failed":
            column = round(_place(place, len(rates)) * (width - 1))
            row = 0.0 if math.isnan(rates[place]) else axis.height(rates[place])
            letters[HEIGHT - 1 - round(row * (HEIGHT - 1))][column] = "x"
    lines = []
    bar = "\N{BOX DRAWINGS LIGHT VERTICAL}" if braille else "|"
    for row, line in enumerate(letters):
        labelled = row in (0, HEIGHT // 2, HEIGHT - 1)
        rate = axis.rate(1 - (row + 0.5) / HEIGHT) if 0 < row < HEIGHT - 1 else 0.0
        rate = axis.high if row == 0 else axis.low if row == HEIGHT - 1 else rate
        label = f"{rate:.4f}" if labelled else ""
        lines.append(f"{label:>{_LABEL}} {bar}{''.join(line)}".rstrip())
    return lines


def _letters(rates: Sequence[float], axis: _Axis, width: int, *, braille: bool) -> list[list[str]]:
    """Rows of letters that a line through all rates passes."""
    across, down = (2, 4) if braille else (1, 1)
    columns, rows = width * across, HEIGHT * down
    bits = [[0] * width for _ in range(HEIGHT)]
    before: int | None = None
    for x in range(columns):
        height = _between(rates, x / max(columns - 1, 1) * (len(rates) - 1), axis)
        if height is None:
            before = None
            continue
        y = rows - 1 - round(height * (rows - 1))
        # A steep line passes several dots of a column.
        for dot in range(
            min(y, y if before is None else before), max(y, y if before is None else before) + 1
        ):
            bits[dot // down][x // across] |= _DOTS[dot % down][x % across]
        before = y
    blank = "" if braille else "*"
    return [
        [(blank or chr(_BRAILLE + letter)) if letter else " " for letter in row] for row in bits
    ]


def _between(rates: Sequence[float], place: float, axis: _Axis) -> float | None:
    """Height of the line at a place between probes; None beside a missing value."""
    left = min(int(place), len(rates) - 1)
    right = min(left + 1, len(rates) - 1)
    share = place - left
    if math.isnan(rates[left]) or (share > 0 and math.isnan(rates[right])):
        return None
    low, high = axis.height(rates[left]), axis.height(rates[right] if share > 0 else rates[left])
    return low + share * (high - low)


def _place(place: int, count: int) -> float:
    return place / (count - 1) if count > 1 else 0.0


def _ends(checkpoint: CheckpointRecord, width: int) -> str:
    """Names of the first and the last layer, at the two ends of the axis."""
    names = [wording.shorten(probe.layer, (width - 1) // 2) for probe in checkpoint.probes]
    if len(names) < 2:
        return names[0] if names else ""
    return names[0] + names[-1].rjust(width - len(names[0]))
