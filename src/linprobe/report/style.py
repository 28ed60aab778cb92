"""The one look of all figures: Okabe and Ito's colours, which colour-blind readers can tell.

Whatever has a colour has a dash and a marker of its own too, for those who see none.
"""

from dataclasses import dataclass
from typing import Any

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
    """How a line other than the probes' own is drawn and called.

    Attributes:
        label: its name for readers.
        colour: a key of `LIGHT` and `DARK`.
        dash: matplotlib's and SVG's lengths of stroke and space, in line widths.
        marker: of its points, by matplotlib's name.
    """

    label: str
    colour: str
    dash: tuple[int, ...]
    marker: str


NETWORK = Look("the network's own error", "green", (5, 2), "")
CONTROLS = {
    "majority": Look("always the commonest class", "muted", (5, 3), ""),
    "input": Look("probe of the input", "ink", (1, 2), ""),
    "untrained": Look("same layer, untrained network", "ink", (6, 2, 1, 2), "D"),
    "random_features": Look("random features of equal width", "violet", (1, 2), "s"),
    "shuffled_labels": Look("same layer, labels shuffled", "orange", (3, 2), "^"),
    "control_task": Look("same layer, control task", "purple", (6, 2, 1, 2, 1, 2), "v"),
}
"""By `ControlRecord.name`."""

LABEL_BOX: Any = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.85}
"""Behind a value that a line may pass."""

STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 9.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.dpi": 200.0,
    "hatch.linewidth": 0.6,
    "svg.fonttype": "path",
    "svg.hashsalt": "linprobe",
    "path.simplify": False,
}
"""Matplotlib settings, applied inside the functions that draw and write, never globally."""
