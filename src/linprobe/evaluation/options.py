"""Options of evaluation: what each probe's error is compared with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EvaluationOptions:
    """Controls and description length to compute beside each probe.

    Attributes:
        controls: names of controls, see `linprobe.evaluation.controls`: "shuffled_labels",
            "control_task", "untrained", "random_features", "input", "majority".
        repeats: draws of each random control.
        types: (of train, of test), a whole number a sample: its type in the control task. None:
            the sample's cluster among those of the inputs.
        mdl: whether to measure the description length of the labels at each layer.
    """

    controls: tuple[str, ...] = ()
    repeats: int = 3
    types: object = None
    mdl: bool = False
