"""What a probe trained by minibatches is worth: its errors, and its distance from an optimum."""

import time
from dataclasses import replace

from torch import Tensor

from linprobe.core.certificate import certify, float64_logits
from linprobe.core.problem import Standardisation
from linprobe.core.solvers.base import Status
from linprobe.pipeline.minibatch import TrainedProbe
from linprobe.probes.protocol import FittedProbe, all_finite, blank_probe, loss_and_error


def evaluate_trained(
    trained: TrainedProbe,
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    num_fit: int,
    l2: float,
    tol: float,
) -> FittedProbe:
    """Evaluate a probe on the three splits and certify it, as it is, for a stated penalty.

    The certified objective is that of the rows that were trained on, standardised by their own
    statistics, where the weight is ``W / scale`` and the bias ``b + W mean``. Where the optimum's
    test error can be is not computed: far from the optimum the bound says nothing.

    Args:
        trained: the probe.
        train_features: (n_train, n_features), raw; the first `num_fit` rows are OVERWRITTEN by
            their standardised form.
        train_labels: (n_train,) int64.
        test_features: (n_test, n_features), raw.
        test_labels: (n_test,) int64.
        num_fit: rows that were trained on; those after them were held out.
        l2: the penalty of the certificate.
        tol: duality gap (nats) up to which the probe counts as converged.

    Returns:
        The probe. Its status is `CONVERGED` if its gap is at most `tol`, else what ended its
        training; `num_passes` counts epochs. Nothing is known of one that diverged, or whose
        features are not all finite.
    """
    started = time.perf_counter()
    blank = replace(
        blank_probe(train_features, len(trained.bias), len(test_labels)),
        status=trained.status,
        l2=l2,
        num_passes=float(trained.epochs),
        optimum_error=None,
    )
    if not all_finite(train_features) or not all_finite(test_features):
        return replace(blank, status=Status.NONFINITE_FEATURES, seconds=trained.seconds)
    if trained.status is Status.DIVERGED:
        return replace(blank, seconds=trained.seconds)

    def logits(features: Tensor) -> Tensor:
        return float64_logits(features, trained.weight) + trained.bias[:, None]

    held_out_loss, held_out_error = loss_and_error(
        logits(train_features[num_fit:]), train_labels[num_fit:]
    )
    test_logits = logits(test_features)
    test_loss, test_error = loss_and_error(test_logits, test_labels)
    fitted = train_features[:num_fit]
    standardisation = Standardisation.fit_(fitted)
    weight = trained.weight / standardisation.scale
    bias = trained.bias + trained.weight @ standardisation.mean
    certificate = certify(fitted, train_labels[:num_fit], weight, bias, l2)
    return replace(
        blank,
        weight=trained.weight,
        bias=trained.bias,
        standardisation=standardisation,
        status=Status.CONVERGED if certificate.duality_gap <= tol else trained.status,
        objective=certificate.objective,
        duality_gap=certificate.duality_gap,
        grad_norm=certificate.grad_norm,
        bias_residual=certificate.bias_residual,
        train_error_rate=certificate.error_rate,
        validation_error_rate=held_out_error,
        test_error_rate=test_error,
        train_cross_entropy=certificate.cross_entropy,
        validation_cross_entropy=held_out_loss,
        test_cross_entropy=test_loss,
        test_logits=test_logits,
        seconds=trained.seconds + time.perf_counter() - started,
    )
