"""Every number of an evaluation, by hand and against scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, confusion_matrix, top_k_accuracy_score

from linprobe.evaluation.metrics import (
    ECE_BINS,
    class_frequencies,
    expected_calibration_error,
    pointwise_v_information,
)
from linprobe.evaluation.metrics import evaluate as evaluate_with_deviations
from linprobe.runtime.errors import LinprobeError


def evaluate(logits, labels, train_labels):
    return evaluate_with_deviations(logits, labels, train_labels)[0]


def made_up(num_classes, n=300, sharp=1.5):
    generator = torch.Generator().manual_seed(num_classes)
    labels = torch.randint(num_classes, (n,), generator=generator)
    logits = sharp * torch.randn(num_classes, n, generator=generator).double()
    logits[labels, torch.arange(n)] += 1.0
    return logits, labels


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_agrees_with_scikit_learn(num_classes):
    logits, labels = made_up(num_classes)
    found = evaluate(logits, labels, labels)
    p, y = logits.softmax(0).T.numpy(), labels.numpy()
    assert found.num_test == 300
    assert [list(row) for row in found.confusion] == confusion_matrix(y, p.argmax(1)).tolist()
    counted = np.zeros((num_classes, num_classes), dtype=int)
    np.add.at(counted, (y, p.argmax(1)), 1)
    assert [list(row) for row in found.confusion] == counted.tolist()
    every = list(range(num_classes))
    expected = brier_score_loss(y, p, labels=every, scale_by_half=False)
    assert found.brier == pytest.approx(expected)
    by_hand = ((p - np.eye(num_classes)[y]) ** 2).sum(1).mean()
    assert found.brier == pytest.approx(by_hand, rel=1e-12)
    assert set(found.top_k_error_rate) == {str(k) for k in (2, 3, 5) if k < num_classes}
    for k, rate in found.top_k_error_rate.items():
        expected = 1 - top_k_accuracy_score(y, p, k=int(k), labels=every)
        assert rate == pytest.approx(expected)


def test_per_class_errors_leave_out_classes_without_samples():
    labels = torch.tensor([0, 0, 0, 0, 2])
    logits = torch.eye(3).double()[:, [0, 0, 1, 0, 2]]
    found = evaluate(logits, labels, torch.tensor([0, 1, 2]))
    assert found.per_class_error_rate == (0.25, None, 0.0)
    assert found.confusion == ((3, 1, 0), (0, 0, 0), (0, 0, 1))


@pytest.mark.parametrize("num_classes", [100, 101])
def test_of_more_than_100_classes_the_largest_mistakes_alone_are_kept(num_classes):
    labels = torch.arange(3 * num_classes) % num_classes
    predicted = labels.clone()
    predicted[[0, num_classes]], predicted[5] = 7, 9
    logits = torch.nn.functional.one_hot(predicted, num_classes).T.double()
    found = evaluate(logits, labels, labels)
    assert found.per_class_error_rate[:2] == (1 - 1 / 3, 0.0) and not found.is_imbalanced
    if num_classes == 100:
        assert found.confusion[0][7] == 2 and found.class_counts == found.mistakes == ()
    else:
        assert found.confusion == () and found.class_counts == (3,) * 101
        assert found.mistakes == ((0, 7, 2), (5, 9, 1))


def test_imbalance_is_known_without_the_matrix():
    labels = torch.cat([torch.arange(101), torch.zeros(30, dtype=torch.int64)])
    logits = torch.zeros(101, len(labels)).double()
    assert evaluate(logits, labels, labels).is_imbalanced


def test_calibration_error_by_hand():
    # Two samples at confidence .9, one right; two at .6, both right, of which .6 is one bin.
    p = torch.tensor([[0.9, 0.9, 0.6, 0.4], [0.1, 0.1, 0.4, 0.6]]).double()
    labels = torch.tensor([0, 1, 0, 1])
    assert expected_calibration_error(p, labels) == pytest.approx((0.8 + 0.8) / 4)
    # In one bin the surplus and the lack of confidence cancel.
    assert expected_calibration_error(p, labels, num_bins=1) == pytest.approx(abs(3.0 - 3.0) / 4)


def test_certain_predictions_share_the_last_bin():
    # .95 and 1 are one bin: right with .975 on average, where one of the two is right.
    p = torch.tensor([[0.95, 1.0], [0.05, 0.0]]).double()
    assert expected_calibration_error(p, torch.tensor([1, 0])) == pytest.approx(0.975 - 0.5)


def test_calibration_error_agrees_with_scikit_learns_curve():
    logits, labels = made_up(4, n=3000)
    p = logits.softmax(0)
    confidence, predicted = (part.numpy() for part in p.max(0))
    right = predicted == labels.numpy()
    accuracy, mean = calibration_curve(right, confidence, n_bins=ECE_BINS)
    counts, _ = np.histogram(confidence, bins=ECE_BINS, range=(0, 1))
    expected = (counts[counts > 0] * abs(accuracy - mean)).sum() / len(right)
    assert expected > 0.05
    assert expected_calibration_error(p, labels) == pytest.approx(expected)


def test_calibration_error_tells_a_calibrated_predictor_from_an_overconfident_one():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 40_000, generator=generator).double()
    labels = torch.multinomial(logits.softmax(0).T, 1, generator=generator)[:, 0]
    assert expected_calibration_error(logits.softmax(0), labels) < 0.01
    assert expected_calibration_error((3 * logits).softmax(0), labels) > 0.2


def test_v_information_by_hand():
    # Training labels: three of class 0, one of class 1. Blind costs 2 - log2 3 and 2 bits.
    train_labels, labels = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1])
    p = torch.tensor([[0.5, 0.25], [0.5, 0.75]]).double()
    blind = [2 - math.log2(3), 2.0]
    found = evaluate(p.log(), labels, train_labels)
    assert found.prior_entropy_bits == pytest.approx(sum(blind) / 2)
    pvi = pointwise_v_information(
        torch.tensor([0.5, 0.75]).log(), labels, class_frequencies(train_labels, 2)
    )
    # 2 - log2 3 - 1 is negative: the probe is worse than none for that sample.
    assert pvi.tolist() == pytest.approx([1 - math.log2(3), math.log2(3)])
    assert found.v_information_bits == pytest.approx(0.5)


def test_v_information_of_useless_and_of_perfect_features():
    labels = torch.arange(400) % 4
    blind = evaluate(torch.zeros(4, 400), labels, labels)
    assert blind.v_information_bits == pytest.approx(0.0, abs=1e-12)
    sure = evaluate(200 * torch.eye(4)[:, labels], labels, labels)
    assert sure.v_information_bits == pytest.approx(2.0) == sure.prior_entropy_bits


def test_class_without_training_samples():
    labels = torch.tensor([0, 1, 2])
    logits = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-math.inf] * 3])
    found = evaluate(logits, labels, torch.tensor([0, 1]))
    assert found.per_class_error_rate == (0.0, 0.0, 1.0)
    assert math.isfinite(found.brier)
    assert found.prior_entropy_bits == math.inf
    assert math.isnan(found.v_information_bits)


def test_relabelled_classes_change_nothing_but_the_order():
    logits, labels = made_up(5)
    turn = torch.tensor([3, 0, 4, 1, 2])
    back = turn.argsort()
    one, other = (
        evaluate(logits, labels, labels),
        evaluate(logits[back], turn[labels], turn[labels]),
    )
    for name in ("ece", "brier", "v_information_bits", "prior_entropy_bits"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-12)
    assert one.top_k_error_rate == other.top_k_error_rate
    moved = [other.per_class_error_rate[k] for k in turn.tolist()]
    assert list(one.per_class_error_rate) == pytest.approx(moved)


def test_refuses_what_does_not_fit():
    with pytest.raises(LinprobeError, match=r"logits have shape \(3, 4\), labels \(3,\)"):
        evaluate(torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64), torch.zeros(3))
    with pytest.raises(LinprobeError, match="logits hold NaN"):
        evaluate(torch.full((2, 1), math.nan), torch.tensor([0]), torch.tensor([0, 1]))
