"""Options of evaluation: what each probe's error is compared with."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from linprobe.records.evidence import CONTROLS
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.numbers import whole_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from linprobe.evaluation.untrained import Untrained


@dataclass(frozen=True)
class EvaluationOptions:
    """Controls and description length to compute beside each probe.

    Attributes:
        controls: names of controls, see `linprobe.evaluation.controls`: "shuffled_labels",
            "control_task", "untrained", "random_features", "input", "majority".
        repeats: draws of each random control.
        types: (of train, of test), a whole number a sample: its type in the control task. None:
            the sample's cluster among those of the inputs.
        untrained: the network of the control "untrained", or a function of the seed that makes it;
            asks for that control by itself. None: a copy of the network, drawn anew by its own
            initialisation (see `linprobe.evaluation.untrained`).
        mdl: whether to measure the description length of the labels at each layer.
    """

    controls: "Sequence[str] | str" = ()
    repeats: int = 3
    types: object = None
    untrained: "Untrained | None" = None
    mdl: bool = False

    def __post_init__(self) -> None:
        names = (self.controls,) if isinstance(self.controls, str) else tuple(self.controls)
        if self.untrained is not None:
            if not callable(self.untrained):
                raise LinprobeError(
                    f"untrained is a {type(self.untrained).__name__}; expected a network, or a "
                    "function f(seed) that makes one"
                )
            names = (*names, "untrained")
        object.__setattr__(self, "controls", tuple(dict.fromkeys(names)))
        for name in self.controls:
            if name not in CONTROLS:
                known = ", ".join(CONTROLS)
                raise LinprobeError(f"there is no control {name!r}; expected some of: {known}")
        object.__setattr__(self, "repeats", whole_number("repeats", self.repeats, 1))

    @property
    def needs_inputs(self) -> bool:
        """True where a control starts from the network's inputs."""
        names = {"input", "random_features"} | ({"control_task"} if self.types is None else set())
        return bool(names & set(self.controls))
