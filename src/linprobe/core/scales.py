"""Names of the ways to scale features; imports no torch, so that the command line can."""

from typing import Literal, get_args

Scale = Literal["auto", "layer", "feature"]
"""Divide by one number for the layer, each column by its own deviation, or as suits the columns."""

SCALES: tuple[str, ...] = get_args(Scale)
