"""Measures beside each layer's error: metrics always, controls and code when asked for.

All of it starts from features that are in memory anyway, so that a layer is extracted once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from torch import Tensor

from linprobe.core.features import DamagedRows, FeatureMatrix
from linprobe.core.solvers.base import Status
from linprobe.evaluation.controls import Controls
from linprobe.evaluation.mdl import online_codelength
from linprobe.evaluation.metrics import evaluate
from linprobe.evaluation.resampling import Array, Resamples
from linprobe.probes.base import FittedProbe, OnSolve, Targets
from linprobe.probes.config import ProbeConfig
from linprobe.probes.weights import row_weights
from linprobe.records.evidence import ControlRecord, Evaluation
from linprobe.runtime.text import said

_CODE_COST = 0.6  # of a probe's seconds, roughly: for estimates of the time left
_CONTROL_COST = 0.8


@dataclass(frozen=True)
class EvaluationPlan:
    """Plan of what is computed beside each probe.

    Attributes:
        controls: those of layers; None: none.
        mdl: settings of the fits of the online code; None: no code is computed.
    """

    controls: Controls | None = None
    mdl: ProbeConfig | None = None

    @property
    def relative_cost(self) -> float:
        """Rough cost, in units of the layer's own probe."""
        fits = 0 if self.controls is None else self.controls.fits_per_layer
        return _CONTROL_COST * fits + _CODE_COST * (self.mdl is not None)

    def compare(
        self,
        layer: str,
        fitted: FittedProbe,
        evaluation: Evaluation,
        features: tuple[FeatureMatrix, Tensor | FeatureMatrix],
        targets: Targets,
        on_solve: OnSolve | None = None,
        strict: bool = False,
    ) -> tuple[Evaluation, tuple[ControlRecord, ...], str | None]:
        """Compute the online code and the controls of one layer.

        Args:
            layer: its name.
            fitted: its probe, tested.
            evaluation: what its test probabilities show.
            features: training features as the method prepared them, and raw test features.
            targets: that the probe was fitted to.
            on_solve: called after each fit.
            strict: raise what goes wrong, instead of leaving it out.

        Returns:
            The evaluation with the code in it; the controls; what is missing, and why.
        """
        if fitted.status is Status.DEGENERATE_LABELS:
            return evaluation, (), None
        missing: list[str] = []
        if self.mdl is not None:
            with _left_out("description length", missing, strict):
                code = online_codelength(
                    *(features[0], targets.labels, targets.num_classes, fitted.l2, self.mdl),
                    sample_weight=row_weights(targets, self.mdl.class_weight),
                )
                evaluation = replace(evaluation, mdl=code)
        found: list[ControlRecord] = []
        if self.controls is not None:
            rate = fitted.test_error_rate
            with _left_out("controls", missing, strict):
                found.extend(self.controls.of_layer(layer, *features, rate, on_solve))
        return evaluation, tuple(found), "; ".join(missing) or None


@contextmanager
def _left_out(what: str, missing: list[str], strict: bool) -> Iterator[None]:
    """Note an error within the block, and go on."""
    try:
        yield
    except Exception as error:
        if strict or isinstance(error, DamagedRows):  # of which the probe may be made too
            raise
        missing.append(f"no {what}: {said(error)}")


def evaluate_probe(
    fitted: FittedProbe,
    train_labels: Tensor,
    test_labels: Tensor,
    resamples: Resamples,
    train_weight: Tensor | None = None,
) -> tuple[Evaluation | None, dict[str, Array]]:
    """Evaluate the test probabilities of a tested probe.

    Args:
        fitted: the probe, with its test result.
        train_labels: (n_train,) int64, that it was fitted on.
        test_labels: (n_test,) int64, that it was tested on.
        resamples: of the test samples.
        train_weight: (n_train,), of the training rows; None: equal.

    Returns:
        The evaluation, and the deviations of its metrics by name; None and nothing where a logit
        is NaN, because a test feature is not finite.
    """
    if bool(fitted.test_logits.isnan().any()):
        return None, {}
    evaluation, deviations = evaluate(
        fitted.test_logits, test_labels, train_labels, resamples, train_weight
    )
    if (bound := fitted.optimum_error) is not None:
        evaluation = replace(
            evaluation,
            optimum_error_interval=(bound.low, bound.high),
            num_undecided=bound.num_undecided,
        )
    return evaluation, deviations
