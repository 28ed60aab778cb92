"""What is computed beside a layer's probe, when asked for: the online code and the controls.

Both start from the features that `fit_probe` leaves behind, so a layer is extracted once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from linprobe.core.solvers.base import Status
from linprobe.evaluation.controls import ControlConfig, Controls, Pair, Task
from linprobe.evaluation.mdl import online_codelength
from linprobe.probes.base import FailedProbe, FittedProbe
from linprobe.probes.base import OnSolve as OnEvent
from linprobe.probes.config import ProbeConfig
from linprobe.records.evidence import ControlRecord, Evaluation

Wanted = Sequence[str] | ControlConfig
"""Names of controls, or these with the number of draws."""

NOTHING_TO_COMPARE = (Status.NONFINITE_FEATURES, Status.DEGENERATE_LABELS)

_CODE_COST = 0.6  # of a probe's seconds, roughly: for estimates of the time left
_CONTROL_COST = 0.8


@dataclass(frozen=True)
class Extras:
    """What to compute beside each probe.

    Attributes:
        controls: those of layers; None: none.
        mdl: whether to compute the online code of the training labels.
    """

    controls: Controls | None = None
    mdl: bool = False

    @property
    def relative_cost(self) -> float:
        """Rough cost, in units of the layer's own probe."""
        fits = 0 if self.controls is None else self.controls.fits_per_layer
        return _CONTROL_COST * fits + _CODE_COST * self.mdl

    def of_layer(
        self,
        layer: str,
        fitted: FittedProbe | FailedProbe,
        evaluation: Evaluation | None,
        train: tuple[Tensor, Tensor],
        test: Tensor,
        config: ProbeConfig,
        on_event: OnEvent | None = None,
    ) -> tuple[Evaluation | None, tuple[ControlRecord, ...]]:
        """Compute what is asked for of one layer.

        Args:
            layer: its name.
            fitted: its probe.
            evaluation: what its test probabilities show.
            train: features (n_train, n_features) as `fit_probe` left them, standardised, and
                labels (n_train,).
            test: raw features (n_test, n_features); OVERWRITTEN by their standardised form.
            config: the protocol's numbers.
            on_event: called after each fit.

        Returns:
            The evaluation with the code in it, and the controls.
        """
        if (
            evaluation is None
            or isinstance(fitted, FailedProbe)
            or fitted.status in NOTHING_TO_COMPARE
        ):
            return evaluation, ()
        if self.mdl:
            code = online_codelength(*train, len(fitted.bias), fitted.l2, config)
            evaluation = replace(evaluation, mdl=code)
        if self.controls is None:
            return evaluation, ()
        standardisation = fitted.standardisation
        test.sub_(standardisation.mean.to(test.dtype)).mul_(standardisation.scale)
        rate = fitted.test_error_rate
        found = self.controls.of_layer(layer, train[0], test, rate, on_event)
        return evaluation, tuple(found)


def control_config(wanted: Wanted, seed: int) -> ControlConfig:
    """Settle what controls are wanted; their draws start at `seed`.

    Raises:
        LinprobeError: No such control.
    """
    if isinstance(wanted, ControlConfig):
        return replace(wanted, seed=seed)
    names = (wanted,) if isinstance(wanted, str) else tuple(dict.fromkeys(wanted))
    return ControlConfig(names, seed=seed)


def make_extras(
    controls: ControlConfig,
    *,
    mdl: bool,
    train_labels: Tensor,
    test_labels: Tensor,
    num_classes: int,
    probe: ProbeConfig,
    inputs: Pair | None = None,
    types: Pair | None = None,
) -> Extras:
    """Prepare the extras of all layers of one network.

    Args:
        controls: which controls.
        mdl: whether to compute the online code.
        train_labels: (n_train,) int64, held-out rows last.
        test_labels: (n_test,) int64.
        num_classes: K.
        probe: the protocol's numbers.
        inputs: flattened inputs of the network, as `linprobe.evaluation.controls.Task` takes them.
        types: of the control task, likewise.

    Raises:
        LinprobeError: A control lacks inputs or types.
    """
    task = Task(train_labels, test_labels, num_classes, inputs, types)
    return Extras(Controls(controls, task, probe), mdl)
