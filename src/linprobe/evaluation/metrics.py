"""What a probe's probabilities on the test split show beyond its error rate.

All of it is arithmetic on the (n_classes, n_test) logits of one probe, which cost no further read
of the features. Confusion, calibration, top-k errors and the ROC area are torchmetrics'; tests
compare them with scikit-learn's.
"""

import math

import torch
from torch import Tensor
from torchmetrics.functional import classification as metrics

from linprobe.records.evidence import Evaluation
from linprobe.runtime.errors import LinprobeError

ECE_BINS = 15
TOP_K = (2, 3, 5)


def evaluate(logits: Tensor, labels: Tensor, train_labels: Tensor) -> Evaluation:
    """Evaluate a probe on its test split.

    Args:
        logits: (n_classes, n_test); minus infinity for classes without training samples.
        labels: (n_test,) int64.
        train_labels: (n_train,) int64, for what is known of the labels without features.

    Raises:
        LinprobeError: Shapes that don't fit, or logits that are NaN.
    """
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
    confusion = metrics.multiclass_confusion_matrix(
        logits.argmax(0), labels, num_classes, validate_args=False
    )
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
        brier=brier_score(log_p.exp(), labels),
        top_k_error_rate={
            str(k): top_k_error_rate(logits, labels, k) for k in TOP_K if k < num_classes
        },
        auroc=auroc(logits[1] - logits[0], labels == 1) if num_classes == 2 else None,
        v_information_bits=float(pvi.mean()),
        prior_entropy_bits=float(_blind_bits(labels, frequencies).mean()),
    )


def class_frequencies(labels: Tensor, num_classes: int) -> Tensor:
    """Share of each class among `labels`: (n_classes,) float64."""
    return torch.bincount(labels, minlength=num_classes).double() / len(labels)


def pointwise_v_information(
    own_log_probability: Tensor, labels: Tensor, frequencies: Tensor
) -> Tensor:
    """Bits that the features tell the probe about each sample's label; may be negative.

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
    """Bits that each label costs a predictor that sees no features."""
    return -frequencies.double().log2()[labels]


def expected_calibration_error(
    probabilities: Tensor, labels: Tensor, num_bins: int = ECE_BINS
) -> float:
    """Mean distance of confidence and accuracy over equal-width bins of confidence.

    Guo et al., On calibration of modern neural networks (ICML 2017), equation 3.

    Args:
        probabilities: (n_classes, n).
        labels: (n,) int64.
        num_bins: of width ``1 / num_bins``.
    """
    error = metrics.multiclass_calibration_error(
        probabilities.T, labels, len(probabilities), num_bins, validate_args=False
    )
    return float(error)


def brier_score(probabilities: Tensor, labels: Tensor) -> float:
    """Mean of ``sum_k (p_k - [k = y])^2``, 0 to 2 (Brier 1950), of (n_classes, n) and (n,)."""
    own = probabilities.gather(0, labels[None])[0]
    return float((probabilities.square().sum(0) - 2 * own + 1).mean())


def top_k_error_rate(logits: Tensor, labels: Tensor, k: int) -> float:
    """Share of samples whose label is not among the `k` largest of (n_classes, n) logits."""
    accuracy = metrics.multiclass_accuracy(
        logits.T, labels, len(logits), average="micro", top_k=k, validate_args=False
    )
    wrong = round(len(labels) * (1 - float(accuracy)))  # the accuracy is a float32
    return wrong / len(labels)


def auroc(scores: Tensor, positive: Tensor) -> float | None:
    """Probability that a positive sample scores above a negative one, ties counted half.

    It is the area under the ROC curve (Hanley & McNeil 1982).

    Args:
        scores: (n,).
        positive: (n,) bool.

    Returns:
        None where one of the classes has no sample.
    """
    if bool(positive.all()) or not bool(positive.any()):
        return None
    # By rank: torchmetrics would squash scores, and so make ties of large ones.
    place = scores.unique(return_inverse=True)[1].double()
    return float(metrics.binary_auroc(place / len(place), positive.long(), validate_args=False))
