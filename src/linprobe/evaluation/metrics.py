"""Metrics of a probe's probabilities on the test split, beyond its error rate.

All of it is arithmetic on the (n_classes, n_test) logits of one probe, which cost no further read
of the features. scikit-learn is imported when it is used, so that commands start without it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linprobe.evaluation.ranking import area, auroc_components, precision, resampled_precision
from linprobe.evaluation.resampling import Array, Resamples, of_components, of_draws
from linprobe.evaluation.scored import Scored
from linprobe.evaluation.statistics import metric_interval
from linprobe.records.evidence import ERROR_RATE, Evaluation, MetricRecord
from linprobe.runtime.errors import LinprobeError

ECE_BINS = 15
TOP_K = (2, 3, 5)
MOST_CLASSES = 100
"""Classes up to which the counts of all mistakes are kept."""
_NUM_MISTAKES = 20


@dataclass(frozen=True, kw_only=True)
class Metric(MetricRecord):
    """A number of a probe's predictions; an entry of `METRICS` is all that a new one takes.

    Attributes:
        compute: the metric of a `Scored`; NaN: it has none.
        deviations: its deviations, see `linprobe.evaluation.resampling`, which give its interval
            and the paired test of layers; None: it has neither.
    """

    compute: Callable[[Scored], float]
    deviations: Callable[[Scored], Array] | None = None


def _balanced_error_rate(scored: Scored) -> float:
    return 1 - _mean_class_accuracy(scored)


def _mean_class_accuracy(scored: Scored) -> float:
    from sklearn.metrics import recall_score

    classes = scored.classes.tolist()
    labels, predicted = scored.labels, scored.predicted
    return float(recall_score(labels, predicted, labels=classes, average="macro"))


def _error_deviations(scored: Scored) -> Array:
    labels, wrong = scored.labels, np.flatnonzero(scored.labels != scored.predicted)
    wrong = wrong[np.argsort(labels[wrong], kind="stable")]
    missed, starts = np.unique(labels[wrong], return_index=True)
    rates = scored.resamples.sums(wrong, starts) / scored.counts[missed][:, None]
    return of_draws(rates.sum(0) / len(scored.classes))


def _matthews(scored: Scored) -> float:
    from sklearn.metrics import matthews_corrcoef

    if len(scored.classes) < 2:  # scikit-learn would warn
        return 0.0
    return float(matthews_corrcoef(scored.labels, scored.predicted))


def _matthews_deviations(scored: Scored) -> Array:
    labels, predicted = scored.labels, scored.predicted
    n, true = len(labels), scored.counts.astype(np.float64)
    order = np.argsort(predicted, kind="stable")
    classes, starts = np.unique(predicted[order], return_index=True)
    given = scored.resamples.sums(order, starts)
    right = scored.resamples.sums(np.flatnonzero(labels == predicted), np.zeros(1, int))[0]
    covariance = n * right - true[classes] @ given
    square = (n * n - true @ true) * (n * n - (given * given).sum(0))
    return of_draws(np.where(square > 0, covariance / np.sqrt(np.maximum(square, 1)), 0.0))


def _auroc(scored: Scored) -> float:
    from sklearn.metrics import roc_auc_score

    # One call for each of many classes would take as long as a small probe.
    return scored.mean_of_classes(area if len(scored.classes) > 2 else roc_auc_score)


def _auroc_deviations(scored: Scored) -> Array:
    parts = [auroc_components(ranks, own) for own, ranks in scored.one_against_rest]
    return of_components(np.mean(parts, axis=0), scored.labels)


def _average_precision(scored: Scored) -> float:
    from sklearn.metrics import average_precision_score

    return scored.mean_of_classes(precision if len(scored.classes) > 2 else average_precision_score)


def _precision_deviations(scored: Scored) -> Array:
    resamples = scored.resamples
    parts = (resampled_precision(rank, own, resamples) for own, rank in scored.one_against_rest)
    return of_draws(np.mean(list(parts), axis=0))


METRICS: tuple[Metric, ...] = (
    Metric(
        name="balanced_error_rate",
        label="balanced error",
        about="Mean of the error rates of the classes that occur in the test set.",
        higher_is_better=False,
        of_imbalance=True,
        compute=_balanced_error_rate,
        deviations=_error_deviations,
    ),
    Metric(
        name="auroc",
        label="AUROC",
        about="Probability that a sample of class 1 scores above one of class 0, ties counted as "
        "half (Hanley & McNeil, Radiology 1982); of more classes, the mean over those in the test "
        "set, each against the rest.",
        of_imbalance=True,
        compute=_auroc,
        deviations=_auroc_deviations,
    ),
    Metric(
        name="average_precision",
        label="average precision",
        about="Mean precision at the thresholds of all samples of class 1 (area under the "
        "precision-recall curve); of more classes, the mean over those in the test set, each "
        "against the rest.",
        of_imbalance=True,
        compute=_average_precision,
        deviations=_precision_deviations,
    ),
    Metric(
        name="mean_class_accuracy",
        label="mean-per-class accuracy",
        about="Mean of the accuracies of the classes that occur in the test set: 1 - balanced "
        "error.",
        compute=_mean_class_accuracy,
        deviations=_error_deviations,
    ),
    Metric(
        name="matthews",
        label="Matthews' correlation",
        about="Correlation of predicted and true classes, -1 to 1, 0 for any constant prediction "
        "however unequal the classes are (Gorodkin, Comput. Biol. Chem. 2004).",
        least=-1.0,
        compute=_matthews,
        deviations=_matthews_deviations,
    ),
)
"""Metrics that CSV, page, data frame and documentation list, each by this one entry."""


def metric_records() -> tuple[MetricRecord, ...]:
    """Describe all metrics for a run's record."""
    names = [item.name for item in fields(MetricRecord)]
    return tuple(MetricRecord(**{k: getattr(metric, k) for k in names}) for metric in METRICS)


def metric_deviations(scored: Scored) -> dict[str, Array]:
    """Compute the deviations of each metric that has them, by name.

    None has them where a class has a single test sample, which says nothing of its variation, or
    where one class alone is in the test set.
    """
    counts = scored.counts[scored.classes]
    if len(counts) < 2 or counts.min() < 2:
        return {}
    return {m.name: m.deviations(scored) for m in METRICS if m.deviations is not None}


def constant_metrics(
    train_labels: Tensor,
    test_labels: Tensor,
    num_classes: int,
    train_weight: Tensor | None = None,
) -> dict[str, float]:
    """Compute the metrics of the majority-class baseline, which ranks all samples alike."""
    frequencies = class_frequencies(train_labels, num_classes, train_weight)
    logits = frequencies.log()[:, None].expand(-1, len(test_labels))
    scored = Scored(logits, test_labels, Resamples(test_labels, 0))
    return {metric.name: metric.compute(scored) for metric in METRICS}


def check_metric(name: str | None) -> None:
    """Refuse a name that no run will have, with a `LinprobeError`; None: nothing was chosen."""
    known = (ERROR_RATE, *(metric.name for metric in METRICS))
    if name is not None and name not in known:
        raise LinprobeError(f"there is no metric {name!r}; expected one of: {', '.join(known)}")


def evaluate(
    logits: Tensor,
    labels: Tensor,
    train_labels: Tensor,
    resamples: Resamples | None = None,
    train_weight: Tensor | None = None,
) -> tuple[Evaluation, dict[str, Array]]:
    """Evaluate a probe on its test split.

    Args:
        logits: (n_classes, n_test); minus infinity for classes without training samples.
        labels: (n_test,) int64.
        train_labels: (n_train,) int64, whose frequencies predict without features.
        resamples: of the test samples; None: metrics have no intervals.
        train_weight: (n_train,), of these; None: equal. Test samples count once each.

    Returns:
        The evaluation, and the deviations of its metrics by name.

    Raises:
        LinprobeError: Shapes that don't fit, or logits that are NaN.
    """
    from sklearn.metrics import brier_score_loss, confusion_matrix

    _check(logits, labels)
    logits = logits.double()
    num_classes = len(logits)
    log_p = logits.log_softmax(0)
    scored = Scored(logits, labels, resamples or Resamples(labels, 0))
    deviations = metric_deviations(scored) if resamples is not None else {}
    values = {metric.name: metric.compute(scored) for metric in METRICS}
    p, y, classes = scored.probabilities, scored.labels, range(num_classes)
    confusion = confusion_matrix(y, scored.predicted, labels=classes)
    frequencies = class_frequencies(train_labels, num_classes, train_weight)
    pvi = pointwise_v_information(log_p.gather(0, labels[None])[0], labels, frequencies)
    evaluation = Evaluation(
        num_test=len(labels),
        **_confused(confusion),
        per_class_error_rate=tuple(
            1 - row[true] / sum(row) if any(row) else None
            for true, row in enumerate(confusion.tolist())
        ),
        ece=expected_calibration_error(log_p.exp(), labels),
        brier=float(brier_score_loss(y, p, labels=classes, scale_by_half=False)),
        top_k_error_rate={
            str(k): top_k_error_rate(logits, labels, k) for k in TOP_K if k < num_classes
        },
        v_information_bits=float(pvi.mean()),
        prior_entropy_bits=float(_blind_bits(labels, frequencies).mean()),
        metrics=values,
        metric_intervals=_intervals(values, deviations),
        answers_only=scored.answers_only,
    )
    return evaluation, deviations


def _confused(counts: np.ndarray) -> dict[str, Any]:
    """Keep counts (n_classes, n_classes) of few classes; of many, a million numbers say little."""
    if len(counts) <= MOST_CLASSES:
        return {"confusion": tuple(map(tuple, counts.tolist()))}
    wrong = counts - np.diag(np.diag(counts))
    worst = np.argsort(-wrong, axis=None, kind="stable")[:_NUM_MISTAKES]
    places = zip(*np.unravel_index(worst, wrong.shape), strict=True)
    found = [(int(true), int(told), int(wrong[true, told])) for true, told in places]
    return {
        "confusion": (),
        "class_counts": tuple(counts.sum(1).tolist()),
        "mistakes": tuple(mistake for mistake in found if mistake[2]),
    }


def _check(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[1:] or not len(labels):
        raise LinprobeError(
            f"logits have shape {tuple(logits.shape)}, labels {tuple(labels.shape)}; expected "
            "(n_classes, n_test) and (n_test,) with at least one sample"
        )
    if bool(logits.isnan().any()):
        raise LinprobeError("logits hold NaN; expected those of a probe on finite features")


def _intervals(
    values: dict[str, float], deviations: dict[str, Array]
) -> dict[str, tuple[float, float]]:
    known = [metric for metric in METRICS if metric.name in deviations]
    found = ((m.name, metric_interval(values[m.name], deviations[m.name], m.least)) for m in known)
    return {name: interval for name, interval in found if interval is not None}


def class_frequencies(labels: Tensor, num_classes: int, weight: Tensor | None = None) -> Tensor:
    """Return the share of each class among `labels`, or of their weight: (n_classes,) float64."""
    total = len(labels) if weight is None else weight.sum()
    return torch.bincount(labels, weight, minlength=num_classes).double() / total


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
