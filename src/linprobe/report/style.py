"""The one look of all figures: Okabe and Ito's colours, which colour-blind readers can tell.

Whatever has a colour has a dash and a marker of its own too, for those who see none.
"""

from dataclasses import dataclass
from typing import Any, Literal

from linprobe.records.schema import Standing

INK = "#222222"
MUTED = "#6b6b6b"
BLUE = "#0072B2"
VERMILION = "#D55E00"
GREEN = "#009E73"

LIGHT = {
    "ink": INK,
    "muted": MUTED,
    "surface": "#ffffff",
    "raised": "#f4f5f6",
    "line": "#dddddd",
    "blue": BLUE,
    "vermilion": VERMILION,
    "green": GREEN,
    "orange": "#B87400",
    "purple": "#B0578D",
    "violet": "#6F5FC6",
}
"""Colours on a light ground: static figures, and the report by day and on paper."""

DARK = {
    "ink": "#e8e8e8",
    "muted": "#a3a7ab",
    "surface": "#15181b",
    "raised": "#20252a",
    "line": "#3a4046",
    "blue": "#56B4E9",
    "vermilion": "#F0803C",
    "green": "#2BBF93",
    "orange": "#E69F00",
    "purple": "#DD90BC",
    "violet": "#A79BF0",
}
"""The same colours for the report on a dark ground."""


@dataclass(frozen=True)
class Look:
    """Look and name of a series.

    Attributes:
        label: its name for readers; "": it is not listed in the key.
        colour: a key of `LIGHT` and `DARK`.
        dash: lengths of stroke and space in line widths, as in matplotlib and SVG; (): its points
            are not joined.
        marker: of its points, by matplotlib's name; "": none; "bar": a wide pale bar each.
        filled: whether markers are; the others have a rim of the colour.
        hatch: of bars.
    """

    label: str
    colour: str
    dash: tuple[float, ...] = ()
    marker: str = ""
    filled: bool = True
    hatch: str | None = None


SOLID = (1.0, 0.0)
"""The dash of a line without spaces."""

CHANGE = Look("", "blue", SOLID)
NO_CHANGE = Look("no change found", "blue", (1, 2))
NETWORK = Look("the network's own error", "green", (5, 2))
OPTIMUM = Look("range of the exact optimum", "orange", marker="bar")
LOST = Look("no value", "vermilion", marker="x", filled=False)
OTHERS = Look("other checkpoints", "muted", SOLID)
ENTROPY = Look("entropy of the labels", "muted", (5, 3))

CONTROL_LOOKS = {
    "majority": Look("majority-class baseline", "muted", (5, 3)),
    "input": Look("probe of the input", "ink", (1, 2)),
    "untrained": Look("same layer, untrained network", "ink", (6, 2, 1, 2), "D"),
    "random_features": Look("random features of equal width", "violet", (1, 2), "s"),
    "shuffled_labels": Look("same layer, labels shuffled", "orange", (3, 2), "^"),
    "control_task": Look("same layer, control task", "purple", (6, 2, 1, 2, 1, 2), "v"),
}
"""By `ControlRecord.name`."""

NATIVE_LOOKS = {
    dtype: Look(f"probe of {dtype} activations", "ink", SOLID)
    for dtype in ("float32", "bfloat16", "float16")
}
"""By the dtype of activations whose rounding takes away what varies."""

PROBE_LOOKS: dict[Standing, Look] = {
    "certified": Look("probe, certified optimum", "blue", marker="o"),
    "trained": Look("probe, trained by SGD", "purple", marker="D"),
    "failed": Look("probe, not certified", "vermilion", marker="o", filled=False, hatch="////"),
}
"""By `ProbeRecord.standing`."""

LABEL_BOX: Any = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.85}
"""Behind a value that a line may pass."""

StyleName = Literal["paper", "slides"]

_EVERYWHERE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "text.color": INK,
    # A layer may be called anything; a dollar sign is no mathematics.
    "text.parse_math": False,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": LIGHT["line"],
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.columnspacing": 1.2,
    "figure.facecolor": "white",
    "figure.constrained_layout.h_pad": 0.07,
    "figure.constrained_layout.w_pad": 0.06,
    "savefig.facecolor": "white",
    "savefig.dpi": 200.0,
    "hatch.linewidth": 0.6,
    # TrueType outlines in PDF, drawn outlines in SVG: nothing depends on the reader's fonts.
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "linprobe",
    "path.simplify": False,
}


def _scaled(font: float, line: float) -> Any:
    """Scale all settings in proportion to the text (points) and to a curve (points)."""
    return _EVERYWHERE | {
        "font.size": font,
        "axes.titlesize": 1.1 * font,
        "axes.labelsize": font,
        "axes.linewidth": 0.65 * line,
        "grid.linewidth": 0.5 * line,
        "lines.linewidth": line,
        "lines.markersize": 3.5 * line,
        "xtick.labelsize": 0.9 * font,
        "ytick.labelsize": 0.9 * font,
        "xtick.major.width": 0.65 * line,
        "ytick.major.width": 0.65 * line,
        "legend.fontsize": 0.9 * font,
    }


STYLE: Any = _scaled(9.0, 1.3)
"""Matplotlib settings, applied inside the functions that draw and write, never globally."""

STYLES: dict[StyleName, Any] = {"paper": _scaled(7.0, 1.0), "slides": _scaled(15.0, 2.4)}
"""The same look for a page of two columns, and for a screen far away."""

SLIDE = (13.33, 7.5)
"""Width and height of a 16:9 slide in inches."""

COLUMN, PAGE, ROW = 3.5, 7.1, 3.1
"""Widths of a paper's column and page and height of a row of panels, inches."""
