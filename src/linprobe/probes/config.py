"""The numbers that a probe is asked for; imports no torch, so that the command line can."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal, get_args

from linprobe.core.scales import SCALES, Scale
from linprobe.probes.weights import ClassWeight, check_class_weight
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.numbers import (
    as_real,
    check_seed,
    positive_number,
    real_number,
    shown,
    whole_number,
)

DEFAULT_L2_PATH = tuple(10.0**-exponent for exponent in range(1, 10))

Penalties = float | Sequence[float] | None
"""One penalty, several to choose from in any order, or None for `DEFAULT_L2_PATH`."""

Criterion = Literal["cross_entropy", "error_rate"]
"""What is least on the held-out samples at the penalty that is chosen."""

CRITERIA: tuple[str, ...] = get_args(Criterion)


@dataclass(frozen=True, init=False)
class ProbeConfig:
    """The numbers of the method.

    Attributes:
        l2_path: penalties to choose from on held-out samples: one, or several in any order, which
            are kept falling.
        tol: duality gap (nats) at which a problem counts as solved.
        validation_fraction: share of the training rows held out for choosing `l2`.
        max_passes: passes over the features allowed for each `l2`; twice as many where the probe is
            to be exact.
        extend: go on beyond either end of the default path, decade by decade, while what
            `choose_by` names falls by more than its noise; penalties that are given stay as they
            are. Where the probe is to be exact, not below 1e-13, where float64 can't tell the
            optimum.
        exact: solve the chosen penalty on, beyond `tol`, until the certificate tells of each test
            sample whether the exact optimum classifies it correctly, or the arithmetic ends.
        seed: of the solver's row samples.
        scale: what centred features are divided by: "layer", one number for all columns; "feature",
            each column by its own deviation; or "auto": "feature" where a few columns hold nearly
            all of the variance, else "layer".
        class_weight: weights of the training samples by class, as a dict of class to weight (1 for
            classes that it lacks), or "balanced": all classes weigh the same. They multiply
            sample weights and count wherever those do; test samples count once each.
        choose_by: what the held-out samples choose `l2` by: "cross_entropy"; or "error_rate", and
            between penalties of equal error cross-entropy. Few samples tell error rates apart less
            surely, but the two may ask for penalties that are far apart.

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
    class_weight: ClassWeight
    extend: bool
    choose_by: Criterion

    def __init__(
        self,
        l2_path: Penalties = None,
        tol: float = 1e-4,
        validation_fraction: float = 1 / 6,
        max_passes: int = 200,
        seed: int = 0,
        scale: Scale = "auto",
        exact: bool = True,
        class_weight: ClassWeight = None,
        extend: bool = True,
        choose_by: Criterion = "cross_entropy",
    ) -> None:
        tol = positive_number("tol", tol, "a positive number of nats")
        between = "a number between 0 and 1, such as 1/6"
        validation_fraction = real_number(
            "validation_fraction", validation_fraction, between, lambda share: 0 < share < 1
        )
        _check_named("scale", scale, SCALES)
        _check_named("choose_by", choose_by, CRITERIA)
        object.__setattr__(self, "l2_path", falling_path(l2_path))
        object.__setattr__(self, "tol", tol)
        object.__setattr__(self, "validation_fraction", validation_fraction)
        object.__setattr__(self, "max_passes", whole_number("max_passes", max_passes, 1))
        object.__setattr__(self, "seed", check_seed(seed))
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "exact", bool(exact))
        object.__setattr__(self, "class_weight", check_class_weight(class_weight))
        object.__setattr__(self, "extend", bool(extend))
        object.__setattr__(self, "choose_by", choose_by)

    @property
    def extends_path(self) -> bool:
        """True if the path may go on beyond its ends: it is the default one."""
        return self.extend and self.l2_path == DEFAULT_L2_PATH


def _check_named(option: str, given: object, known: tuple[str, ...]) -> None:
    if given not in known:
        names = ", ".join(map(repr, known))
        raise LinprobeError(f"{option} is {given!r}; expected one of: {names}")


def falling_path(l2: Penalties) -> tuple[float, ...]:
    """Sort penalties into falling order, each once.

    Raises:
        LinprobeError: No penalty, or one that is not a positive number.
    """
    if l2 is None:
        return DEFAULT_L2_PATH
    one = as_real(l2)
    several = isinstance(l2, Iterable) and one is None and not isinstance(l2, str | bytes)
    values = [as_real(value) for value in l2] if several else [one]  # type: ignore[union-attr]
    path = {float(value) for value in values if value is not None and 0 < value < inf}
    if not values or not all(value in path for value in values):
        raise LinprobeError(f"l2 is {shown(l2)}; expected a positive number or several")
    return tuple(sorted(path, reverse=True))
