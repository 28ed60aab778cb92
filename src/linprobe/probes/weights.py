"""Weights of classes and of training rows; the module imports no torch before it is used."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.numbers import positive_number
from linprobe.runtime.text import some

if TYPE_CHECKING:
    from torch import Tensor

    from linprobe.probes.base import Targets

BALANCED: Literal["balanced"] = "balanced"

ClassWeight = Literal["balanced"] | Mapping[Any, float] | None
"""Weights by class; "balanced": such that all classes weigh the same; None: no class weights."""


def check_class_weight(class_weight: object) -> ClassWeight:
    """Return class weights, copied.

    Raises:
        LinprobeError: Neither None nor "balanced" nor a mapping to positive numbers.
    """
    if class_weight is None or (isinstance(class_weight, str) and class_weight == BALANCED):
        return class_weight
    if not isinstance(class_weight, Mapping) or not class_weight:
        raise LinprobeError(
            f"class_weight is {class_weight!r}; expected None, 'balanced', or weights by class "
            "such as {0: 1, 1: 10}"
        )
    expected = "a positive number: to do without a class, leave its samples out"
    return {
        name: float(positive_number(f"the class_weight of {name!r}", value, expected))
        for name, value in class_weight.items()
    }


def numbered_class_weight(class_weight: ClassWeight, classes: Sequence[object]) -> ClassWeight:
    """Replace the names of classes by their numbers.

    Args:
        class_weight: as a user gave it; a name counts as well as the same name in words.
        classes: the names by number.

    Raises:
        LinprobeError: A name that no class has, or two names for one.
    """
    if not isinstance(class_weight, Mapping):
        return class_weight
    numbers = {str(name): number for number, name in enumerate(classes)}
    numbered: dict[int, float] = {}
    for name, value in class_weight.items():
        number = numbers.get(str(name))
        if number is None or number in numbered:
            wrong = "no class" if number is None else "named twice"
            raise LinprobeError(
                f"class_weight has {name!r}, which is {wrong}; expected some of: {some(classes)}"
            )
        numbered[number] = value
    return numbered


def row_weights(targets: "Targets", class_weight: ClassWeight) -> "Tensor | None":
    """Multiply each row's own weight by that of its class.

    "balanced" is ``total / (number of classes * total of the class)``, over classes that occur, as
    in scikit-learn (King & Zeng, Logistic regression in rare events data, 2001).

    Args:
        targets: labels and the rows' own weights.
        class_weight: by class number; classes that it lacks have 1.

    Returns:
        (n_train,) float64; None: all rows count the same.
    """
    import torch

    labels, own, total = targets.labels, targets.sample_weight, targets.sums.total
    if class_weight is None:
        return own
    if own is None:
        own = torch.ones(len(labels), dtype=torch.float64, device=labels.device)
    if isinstance(class_weight, Mapping):
        each = own.new_ones(targets.num_classes)
        for number, value in class_weight.items():
            each[number] = value
    else:
        mass = total(own.new_zeros(targets.num_classes).index_add_(0, labels, own))
        each = total(own.sum()) / (int((mass > 0).sum()) * mass)
    return own * each[labels]
