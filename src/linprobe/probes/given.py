"""A probe that was trained elsewhere: its errors, and its distance from a stated optimum."""

import time
from dataclasses import dataclass

from torch import Tensor

from linprobe.core.certificate import certify, float64_logits
from linprobe.core.features import FeatureMatrix, standardised
from linprobe.core.solvers.base import Status
from linprobe.probes.base import FailedProbe, FittedProbe, Targets, proven
from linprobe.probes.scores import loss_and_error


@dataclass(frozen=True)
class TrainedProbe:
    """A probe as its training left it.

    Attributes:
        weight: (n_classes, n_features) float64 on raw features.
        bias: (n_classes,) float64.
        status: what ended its training: `EARLY_STOP`, `EPOCH_LIMIT` or `DIVERGED`.
        epochs: that it was trained for.
        seconds: that the training took.
    """

    weight: Tensor
    bias: Tensor
    status: Status
    epochs: int
    seconds: float


def certify_trained(
    trained: TrainedProbe, features: FeatureMatrix, targets: Targets, l2: float, tol: float
) -> FittedProbe | FailedProbe:
    """Evaluate a trained probe on the training rows and certify it; nothing is solved.

    The certified objective is that of the rows that were trained on, standardised by their own
    statistics, where the weight is ``W / scale`` and the bias ``b + W mean``. Where the optimum's
    test error can be is not computed: far from the optimum the bound says nothing.

    Args:
        trained: the probe.
        features: (n_train, n_features), raw and finite. Where they are owned, those that are not
            held out are overwritten by their standardised form.
        targets: labels, and how many rows at the end were held out of the training.
        l2: the penalty of the certificate.
        tol: duality gap (nats) up to which the probe counts as converged.

    Returns:
        The probe. Its status is `CONVERGED` if its gap is at most `tol`, else what ended its
        training; `num_passes` counts epochs. Nothing is known of one that diverged.
    """
    started, num_fit = time.perf_counter(), targets.num_fit
    if trained.status is Status.DIVERGED:
        return FailedProbe(
            Status.DIVERGED,
            "a weight was not finite; lower learning_rate",
            features.num_features,
            len(trained.bias),
            trained.seconds,
        )
    held_out = float64_logits(features.rows(num_fit, features.num_rows), trained.weight)
    loss, error = loss_and_error(held_out + trained.bias[:, None], targets.labels[num_fit:])
    fitted = standardised(features.rows(0, num_fit), "layer")
    mean, scale = fitted.standardisation.mean, fitted.standardisation.scale
    certificate = certify(
        *(fitted, targets.labels[:num_fit], trained.weight / scale),
        *(trained.bias + trained.weight @ mean, l2),
    )
    return FittedProbe(
        weight=trained.weight,
        bias=trained.bias,
        standardisation=fitted.standardisation,
        path=(),
        l2=l2,
        l2_at_edge=False,
        status=Status.CONVERGED if certificate.duality_gap <= tol else trained.status,
        validation_error_rate=error,
        validation_cross_entropy=loss,
        num_passes=float(trained.epochs),
        seconds=trained.seconds + time.perf_counter() - started,
        rounded=False,
        **proven(certificate),
    )
