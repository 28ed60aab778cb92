"""From a fitted probe to what a run keeps of it."""

from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from linprobe.evaluation.metrics import evaluate
from linprobe.evaluation.statistics import wilson_interval
from linprobe.probes.protocol import FittedProbe
from linprobe.records.evidence import Evaluation
from linprobe.records.predictions import Predictions
from linprobe.records.schema import ProbeRecord


def evaluate_probe(
    fitted: FittedProbe, train_labels: Tensor, test_labels: Tensor
) -> tuple[Evaluation, Predictions] | None:
    """What a fitted probe shows on its test split.

    Args:
        fitted: the probe.
        train_labels: (n_train,) int64, that it was fitted on.
        test_labels: (n_test,) int64, that it was tested on.

    Returns:
        None where the probe has no logits, because a feature or a weight is not finite.
    """
    logits = fitted.test_logits
    if bool(logits.isnan().any()):
        return None
    evaluation = evaluate(logits, test_labels, train_labels)
    if (found := fitted.optimum_error) is not None:
        evaluation = replace(
            evaluation,
            optimum_error_interval=(found.low, found.high),
            num_undecided=found.num_undecided,
        )
    return evaluation, Predictions.of(logits, test_labels)


def probe_record(
    layer: str,
    index: int,
    fitted: FittedProbe,
    num_test: int,
    evaluation: Evaluation | None = None,
    *,
    reducer: str | None = None,
    dtype: str | None = None,
) -> ProbeRecord:
    """What a run keeps of a fitted probe.

    Args:
        layer: its name.
        index: its place along the network.
        fitted: the probe.
        num_test: test samples that its test error was measured on.
        evaluation: what its test probabilities show.
        reducer: how the layer was made smaller before probing.
        dtype: that the activations were computed in.
    """
    rate = fitted.test_error_rate
    interval = (rate, rate)  # of an unknown rate: unknown
    if rate == rate:
        interval = wilson_interval(round(rate * num_test), num_test)
    own: dict[str, Any] = {
        "layer": layer,
        "index": index,
        "num_features": fitted.weight.shape[1],
        "reducer": reducer,
        "status": str(fitted.status),
        "test_error_ci95": interval,
        "evaluation": evaluation,
        "dtype": dtype,
        "reason": None,
    }
    shared = {f.name: getattr(fitted, f.name) for f in fields(ProbeRecord) if f.name not in own}
    return ProbeRecord(**own, **shared)
