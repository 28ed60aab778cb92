"""What a penalty is chosen by, and where that differs from cross-entropy."""

import math

import pytest
import torch

from linprobe import ProbeConfig
from linprobe.core.features import DenseFeatures, StreamedFeatures, TensorRows
from linprobe.core.solvers.base import Status
from linprobe.core.sums import LocalSums
from linprobe.probes.base import PathPoint, Targets
from linprobe.probes.choice import mean_and_error, sample_scores, score
from linprobe.probes.softmax import SoftmaxProbe
from tests.support.paths import walked

BY_ERROR = ProbeConfig(choose_by="error_rate")


def drowned(n, columns, size=1e-2, num_test=0):
    """Rows whose label is told by the last 20 columns, of that size beside deviations of 1."""
    y = torch.arange(n) % 2
    x = torch.randn(n, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, -20:] = size * (x[:, -20:] + 0.35 * (2 * y - 1)[:, None])
    held = n - num_test
    return (x[:held], y[:held]), (x[held:], y[held:])


def point(loss, error):
    return PathPoint(0.1, loss, error, 0.0, 1.0, Status.NEAR)


def test_the_error_rate_decides_then_the_cross_entropy():
    points = [point(0.2, 0.3), point(0.9, 0.1), point(0.5, 0.1), point(math.inf, 0.0)]
    assert min(points, key=lambda p: score(p, "cross_entropy")) is points[0]
    assert min(points, key=lambda p: score(p, "error_rate")) is points[2]


def test_scores_of_rows_have_the_mean_and_the_error_of_their_kind():
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 3.0]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1])
    wrong = sample_scores(logits, labels, "error_rate")
    assert wrong.tolist() == [0, 1, 0]
    losses = sample_scores(logits, labels, "cross_entropy")
    assert losses[1] == pytest.approx(math.log(1 + math.e))
    mean, error = mean_and_error(wrong, None, LocalSums())
    assert (mean, error) == pytest.approx((1 / 3, float(wrong.std()) / 3**0.5))
    doubled = mean_and_error(wrong, torch.tensor([2.0, 2.0, 2.0]).double(), LocalSums())
    assert doubled == pytest.approx((mean, error))
    weighted, _ = mean_and_error(wrong, torch.tensor([1.0, 2.0, 1.0]).double(), LocalSums())
    assert weighted == pytest.approx(0.5)


def test_a_probe_chosen_by_error_errs_less_where_the_two_disagree():
    train, test = drowned(1400, 150, 0.1, num_test=1160)
    found = {}
    for config in (ProbeConfig(), BY_ERROR):
        fitted = SoftmaxProbe(config).fit(DenseFeatures(train[0]), Targets(train[1], 2, 40))
        found[config.choose_by] = fitted.tested(*test)
    by_loss, by_error = found["cross_entropy"], found["error_rate"]
    assert by_error.l2 < by_loss.l2 / 100
    assert by_error.validation_error_rate < by_loss.validation_error_rate
    assert by_error.validation_cross_entropy > by_loss.validation_cross_entropy
    assert by_error.test_error_rate < by_loss.test_error_rate
    assert by_error.status is Status.CONVERGED and by_error.duality_gap <= BY_ERROR.tol
    chosen = min(by_error.path, key=lambda p: (p.validation_error_rate, p.validation_cross_entropy))
    assert chosen.l2 == by_error.l2 and chosen.standard_error == 0


def test_a_rise_within_its_noise_ends_no_path():
    (x, y), _ = drowned(300, 100)
    found = walked(x, y, choose_by="cross_entropy")
    losses = {p.l2: p.validation_cross_entropy for p in found.points}
    assert losses[1e-4] > 1.05 * losses[1e-3], "it rises, by chance"
    assert found.best.l2 < 1e-5 and losses[found.best.l2] < losses[1e-3] / 2


def test_the_errors_of_many_rows_end_a_path():
    (x, y), _ = drowned(6000, 40, 1.0)
    y = torch.where(torch.rand(6000, generator=torch.Generator().manual_seed(1)) < 0.2, 1 - y, y)
    groups = 3 * torch.eye(2000).double().repeat(3, 1)  # columns to learn labels by heart with
    found = walked(torch.cat([x, groups], dim=1), y, choose_by="error_rate")
    assert found.points[-1].l2 > 1e-9 and found.best.l2 > found.points[-1].l2
    errors = [p.validation_error_rate for p in found.points]
    assert errors[-1] > min(errors)


def test_weights_of_rows_count_in_the_error():
    (x, y), _ = drowned(300, 100)
    weight = torch.where(y == 0, 5.0, 1.0).double()
    found = walked(x, y, weight, choose_by="error_rate").best
    # The same rows, each as often as it counts.
    times = weight.long()
    held = len(y) - len(y) // 6
    rows = torch.repeat_interleave(torch.arange(len(y)), times)
    held_out = int(times[held:].sum())
    copies = walked(x[rows], y[rows], held_out=held_out, choose_by="error_rate").best
    assert found.l2 == copies.l2
    assert found.validation_error_rate == pytest.approx(copies.validation_error_rate)


def test_streamed_rows_are_chosen_by_error_too():
    (x, y), _ = drowned(6000, 30)
    x = x.float()
    dense = SoftmaxProbe(BY_ERROR).fit(DenseFeatures(x), Targets(y, 2, 1000))
    streamed = StreamedFeatures(TensorRows(x), 6 * 4 * 30 * 6000 / 5)
    found = SoftmaxProbe(BY_ERROR).fit(streamed, Targets(y, 2, 1000))
    assert any(p.num_rows for p in found.path), "a part told where to look"
    assert found.status is Status.CONVERGED
    assert found.validation_error_rate <= dense.validation_error_rate + 0.01
