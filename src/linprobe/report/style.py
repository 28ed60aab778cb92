"""The one look of all figures: Okabe and Ito's colours, which colour-blind readers can tell."""

from typing import Any

INK = "#222222"
MUTED = "#6b6b6b"
BLUE = "#0072B2"
VERMILION = "#D55E00"
GREEN = "#009E73"

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
