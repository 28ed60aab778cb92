"""Metrics of a probe's probabilities on the test split, beyond its error rate.

All of it is arithmetic on the (n_classes, n_test) logits of one probe, which cost no further read
of the features. scikit-learn is imported when it is used, so that commands start without it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from linprobe.records.evidence import Evaluation, MetricRecord
from linprobe.runtime.errors import LinprobeError

ECE_BINS = 15
TOP_K = (2, 3, 5)


@dataclass(frozen=True, kw_only=True)
class Metric(MetricRecord):
    """A number of a probe's predictions; an entry of `METRICS` is all that a new one takes.

    Attributes:
        compute: called as ``compute(labels, probabilities)`` with (n_test,) int64 class numbers
            and (n_test, n_classes) float64; the metric.
    """

    compute: Callable[[np.ndarray, np.ndarray], float]


def _matthews(labels: np.ndarray, probabilities: np.ndarray) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, probabilities.argmax(1)))


METRICS: tuple[Metric, ...] = (
    Metric(
        name="matthews",
        label="Matthews' correlation",
        about="Correlation of predicted and true classes, -1 to 1, 0 for any constant prediction "
        "however unequal the classes are (Gorodkin, Comput. Biol. Chem. 2004).",
        compute=_matthews,
    ),
)
"""Metrics that CSV, page, data frame and documentation list, each by this one entry."""


def metric_records() -> tuple[MetricRecord, ...]:
    """Describe all metrics for a run's record."""
    names = [item.name for item in fields(MetricRecord)]
    return tuple(MetricRecord(**{k: getattr(metric, k) for k in names}) for metric in METRICS)


def evaluate(logits: Tensor, labels: Tensor, train_labels: Tensor) -> Evaluation:
    """Evaluate a probe on its test split.

    Args:
        logits: (n_classes, n_test); minus infinity for classes without training samples.
        labels: (n_test,) int64.
        train_labels: (n_train,) int64, whose frequencies predict without features.

    Raises:
        LinprobeError: Shapes that don't fit, or logits that are NaN.
    """
    from sklearn.metrics import brier_score_loss, confusion_matrix

    if logits.ndim != 2 or labels.shape != logits.shape[1:] or not len(labels):
        raise LinprobeError(
            f"logits have shape {tuple(logits.shape)}, labels {tuple(labels.shape)}; expected "
            "(n_classes, n_test) and (n_test,) with at least one sample"
        )
    if bool(logits.isnan().any()):
        raise LinprobeError("logits hold NaN; expected those of a probe on finite features")
    logits = logits.double()
    num_classes = len(logits)
    log_p = logits.log_softmax(0)
    p, y, classes = log_p.exp().T.cpu().numpy(), labels.cpu().numpy(), range(num_classes)
    confusion = confusion_matrix(y, logits.argmax(0).cpu().numpy(), labels=classes)
    frequencies = class_frequencies(train_labels, num_classes)
    pvi = pointwise_v_information(log_p.gather(0, labels[None])[0], labels, frequencies)
    return Evaluation(
        num_test=len(labels),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        per_class_error_rate=tuple(
            1 - right / count if count else None
            for right, count in zip(
                confusion.diagonal().tolist(), confusion.sum(1).tolist(), strict=True
            )
        ),
        ece=expected_calibration_error(log_p.exp(), labels),
        brier=float(brier_score_loss(y, p, labels=classes, scale_by_half=False)),
        top_k_error_rate={
            str(k): top_k_error_rate(logits, labels, k) for k in TOP_K if k < num_classes
        },
        auroc=auroc(logits[1] - logits[0], labels == 1) if num_classes == 2 else None,
        v_information_bits=float(pvi.mean()),
        prior_entropy_bits=float(_blind_bits(labels, frequencies).mean()),
        metrics={metric.name: metric.compute(y, p) for metric in METRICS},
    )


def class_frequencies(labels: Tensor, num_classes: int) -> Tensor:
    """Return the share of each class among `labels`: (n_classes,) float64."""
    return torch.bincount(labels, minlength=num_classes).double() / len(labels)


def pointwise_v_information(
    own_log_probability: Tensor, labels: Tensor, frequencies: Tensor
) -> Tensor:
    """Compute the bits that the features tell about each sample's label; may be negative.

    ``PVI(x -> y) = log2 g[x](y) - log2 g[none](y)`` (Ethayarajh, Choi & Swayamdipta,
    Understanding dataset difficulty with V-usable information, ICML 2022). The best linear
    predictor that sees no features gives each class its frequency among the training labels.
    The mean over held-out samples estimates the V-information of Xu et al. (A theory of usable
    information under computational constraints, ICLR 2020) for V = softmax regressions.

    Args:
        own_log_probability: (n,) nats, the probe's for each sample's own label; a run keeps it in
            its predictions.
        labels: (n,) int64.
        frequencies: (n_classes,), of the training labels.

    Returns:
        (n,) float64 bits.
    """
    return own_log_probability.double() / math.log(2) + _blind_bits(labels, frequencies)


def _blind_bits(labels: Tensor, frequencies: Tensor) -> Tensor:
    """Compute the bits that each label costs a predictor that sees no features."""
    return -frequencies.double().log2()[labels]


def expected_calibration_error(
    probabilities: Tensor, labels: Tensor, num_bins: int = ECE_BINS
) -> float:
    """Average the gap of confidence and accuracy over equal-width bins of confidence.

    Guo et al., On calibration of modern neural networks (ICML 2017), equation 3.

    Args:
        probabilities: (n_classes, n).
        labels: (n,) int64.
        num_bins: of width ``1 / num_bins``; each holds its upper end.
    """
    confidence, predicted = probabilities.double().max(0)
    surplus = confidence - (predicted == labels).double()
    edges = np.linspace(0, 1, num_bins + 1)
    bins = np.searchsorted(edges[1:-1], confidence.cpu().numpy())
    gaps = np.bincount(bins, weights=surplus.cpu().numpy())
    return float(np.abs(gaps).sum() / len(labels))


def top_k_error_rate(logits: Tensor, labels: Tensor, k: int) -> float:
    """Return the share of samples whose label is not among the `k` largest logits.

    Args:
        logits: (n_classes, n).
        labels: (n,) int64.
        k: below the number of classes.
    """
    missed = (logits.T.topk(k).indices != labels[:, None]).all(1)
    return int(missed.sum()) / len(labels)


def auroc(scores: Tensor, positive: Tensor) -> float | None:
    """Estimate the probability that a positive sample scores above a negative one.

    Ties count half. It is the area under the ROC curve (Hanley & McNeil 1982).

    Args:
        scores: (n,); infinite ones are allowed.
        positive: (n,) bool.

    Returns:
        None where one of the classes has no sample.
    """
    from scipy.stats import rankdata
    from sklearn.metrics import roc_auc_score

    if bool(positive.all()) or not bool(positive.any()):
        return None
    # By rank: scikit-learn refuses the infinite scores of a class without training samples.
    return float(roc_auc_score(positive.cpu().numpy(), rankdata(scores.cpu().numpy())))
