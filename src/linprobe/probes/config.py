"""The numbers that a probe is asked for; imports no torch, so that the command line can."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from numbers import Real

from linprobe.core.scales import SCALES, Scale
from linprobe.runtime.errors import LinprobeError

DEFAULT_L2_PATH = tuple(10.0**-exponent for exponent in range(1, 10))

Penalties = float | Sequence[float] | None
"""One penalty, several to choose from in any order, or None for `DEFAULT_L2_PATH`."""


@dataclass(frozen=True, init=False)
class ProbeConfig:
    """The numbers of the method.

    Attributes:
        l2_path: penalties to choose from on held-out samples: one, or several in any order, which
            are kept falling.
        tol: duality gap (nats) at which a problem counts as solved.
        validation_fraction: share of the training rows held out for choosing `l2`.
        max_passes: passes over the features allowed for each `l2`.
        exact: solve the chosen penalty on, beyond `tol`, until the certificate tells of each test
            sample whether the exact optimum classifies it correctly, or the arithmetic ends.
        seed: of the solver's row samples.
        scale: what centred features are divided by: "layer", one number for all columns; "feature",
            each column by its own deviation; or "auto": "feature" where a few columns hold nearly
            all of the variance, else "layer".

    Raises:
        LinprobeError: A number out of its range.
    """

    l2_path: tuple[float, ...]
    tol: float
    validation_fraction: float
    max_passes: int
    seed: int
    scale: Scale
    exact: bool

    def __init__(
        self,
        l2_path: Penalties = None,
        tol: float = 1e-4,
        validation_fraction: float = 1 / 6,
        max_passes: int = 200,
        seed: int = 0,
        scale: Scale = "auto",
        exact: bool = True,
    ) -> None:
        if not isinstance(tol, int | float) or not tol > 0:
            raise LinprobeError(f"tol is {tol!r}; expected a positive number of nats")
        if not 0 < validation_fraction < 1:
            raise LinprobeError(
                f"validation_fraction is {validation_fraction}; expected a number "
                "between 0 and 1, such as 1/6"
            )
        if max_passes < 1:
            raise LinprobeError(f"max_passes is {max_passes}; expected at least 1")
        if scale not in SCALES:
            known = ", ".join(map(repr, SCALES))
            raise LinprobeError(f"scale is {scale!r}; expected one of: {known}")
        object.__setattr__(self, "l2_path", falling_path(l2_path))
        object.__setattr__(self, "tol", tol)
        object.__setattr__(self, "validation_fraction", validation_fraction)
        object.__setattr__(self, "max_passes", max_passes)
        object.__setattr__(self, "seed", seed)
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "exact", bool(exact))


def falling_path(l2: Penalties) -> tuple[float, ...]:
    """Sort penalties into falling order, each once.

    Raises:
        LinprobeError: No penalty, or one that is not a positive number.
    """
    if l2 is None:
        return DEFAULT_L2_PATH
    try:
        values = [l2] if isinstance(l2, Real) else list(l2)  # type: ignore[arg-type]
        path = tuple(sorted({float(value) for value in values}, reverse=True))
    except (TypeError, ValueError):
        path = ()
    if not path or not all(isfinite(value) and value > 0 for value in path):
        raise LinprobeError(f"l2 is {l2!r}; expected a positive number or several")
    return path
