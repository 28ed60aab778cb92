"""Options of the method: penalties, tolerance and other numbers of a probe."""

from dataclasses import dataclass

from linprobe.runtime.errors import LinprobeError

DEFAULT_L2_PATH = tuple(10.0**-exponent for exponent in range(1, 10))


@dataclass(frozen=True)
class ProbeConfig:
    """Numbers of the certified method.

    Attributes:
        l2_path: penalties to choose from on held-out training samples: one, several in any order,
            or None: 1e-1 to 1e-9. Stored in falling order.
        tol: duality gap (nats) at which a problem counts as solved.
        validation_fraction: share of the training rows held out for choosing the penalty.
        max_passes: passes over the features allowed for each penalty.
        seed: of the solver's row samples.
    """

    l2_path: tuple[float, ...] = DEFAULT_L2_PATH
    tol: float = 1e-4
    validation_fraction: float = 1 / 6
    max_passes: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        given = DEFAULT_L2_PATH if self.l2_path is None else self.l2_path
        values = (given,) if isinstance(given, int | float) else tuple(given)
        path = tuple(sorted({float(value) for value in values}, reverse=True))
        object.__setattr__(self, "l2_path", path)
        if not path or not path[-1] > 0:
            raise LinprobeError(
                f"l2_path is {self.l2_path!r}; expected a positive number or several"
            )
        if not isinstance(self.tol, int | float) or not self.tol > 0:
            raise LinprobeError(f"tol is {self.tol!r}; expected a positive number of nats")
        if not 0 < self.validation_fraction < 1:
            raise LinprobeError(
                f"validation_fraction is {self.validation_fraction}; expected a number "
                "between 0 and 1, such as 1/6"
            )
        if self.max_passes < 1:
            raise LinprobeError(f"max_passes is {self.max_passes}; expected at least 1")
