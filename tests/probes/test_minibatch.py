"""A probe trained by minibatches is what autograd would train."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from linprobe.core.features import DenseFeatures
from linprobe.core.solvers.base import Status
from linprobe.probes import minibatch
from linprobe.probes.base import Targets
from linprobe.probes.minibatch import MinibatchProbe, SGDProtocol
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.randomness import generator
from linprobe.runtime.threads import side_by_side

ADAM = SGDProtocol("adam", 1e-2, max_epochs=6, batch_size=32)
MOMENTUM = SGDProtocol("sgd", 0.1, max_epochs=4, batch_size=32, decay=0.5, decay_batches=5)
STOPPING = replace(ADAM, learning_rate=0.05, max_epochs=60, patience=2)
K, NUM_FIT = 3, 100


@pytest.fixture
def data():
    source = torch.Generator().manual_seed(1)
    features = torch.randn(140, 8, generator=source)
    noise = torch.randn(140, K, generator=source)
    return features, (features[:, :K] + noise).argmax(1)


def fit(data, protocol=ADAM, num_fit=NUM_FIT, seed=0, tol=1e-9, on_solve=None):
    features, labels = data
    method = MinibatchProbe(protocol, tol, seed, "fc1")
    targets = Targets(labels, K, len(labels) - num_fit)
    return method.fit(DenseFeatures(features), targets, on_solve)


def by_autograd(data, protocol, epochs):
    """Train by torch's own means: linear layer, loss, optimiser."""
    x, y = data[0][:NUM_FIT], data[1][:NUM_FIT]
    probe = nn.Linear(x.shape[1], K)
    nn.init.xavier_uniform_(probe.weight, generator=generator(0, "sgd/fc1"))
    nn.init.zeros_(probe.bias)
    if protocol.optimizer == "adam":
        optimizer = torch.optim.Adam(probe.parameters(), lr=protocol.learning_rate)
    else:
        optimizer = torch.optim.SGD(probe.parameters(), lr=protocol.learning_rate, momentum=0.9)
    order, step = generator(0, "sgd order"), 0
    for _ in range(epochs):
        for rows in torch.randperm(NUM_FIT, generator=order).split(protocol.batch_size):
            if protocol.decay_batches:
                decays = step // protocol.decay_batches
                optimizer.param_groups[0]["lr"] = protocol.learning_rate * protocol.decay**decays
            optimizer.zero_grad()
            nn.functional.cross_entropy(probe(x[rows]), y[rows]).backward()
            optimizer.step()
            step += 1
    return probe.weight.detach().double(), probe.bias.detach().double()


@pytest.mark.parametrize("block_bytes", [1, 7 * 32, 2**20])  # one row, an odd number, all
@pytest.mark.parametrize("protocol", [ADAM, MOMENTUM], ids=lambda p: p.optimizer)
def test_probe_is_that_of_autograd(data, protocol, block_bytes, monkeypatch):
    monkeypatch.setattr(minibatch, "_BLOCK_BYTES", block_bytes)
    found = fit(data, protocol)
    weight, bias = by_autograd(data, protocol, protocol.max_epochs)
    torch.testing.assert_close(found.weight, weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.bias, bias, rtol=1e-4, atol=1e-5)
    assert (found.status, found.num_passes) == (Status.EPOCH_LIMIT, protocol.max_epochs)
    assert found.weight.dtype == torch.float64
    assert found.l2 == protocol.certificate_l2
    assert found.seconds > 0


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_a_wide_layer_is_shared_out_among_threads(data, threads, monkeypatch):
    parts = []

    def share(work, items, num_workers):
        parts.append(num_workers)
        return side_by_side(work, items, num_workers)

    monkeypatch.setattr(minibatch, "side_by_side", share)
    monkeypatch.setattr(minibatch, "_BLOCK_BYTES", 7 * 32)
    monkeypatch.setattr(minibatch, "NARROW", 7)
    found = fit(data)
    weight, _ = by_autograd(data, ADAM, ADAM.max_epochs)
    torch.testing.assert_close(found.weight, weight, rtol=1e-4, atol=1e-5)
    # Minibatches of 32 rows in three parts, and a last one of four rows in two.
    assert set(parts) == (set() if threads == 1 else {2, 3})


def held_out_loss(data, weight, bias):
    logits = data[0][NUM_FIT:].double() @ weight.T + bias
    return float(nn.functional.cross_entropy(logits, data[1][NUM_FIT:]))


def test_early_stop_keeps_the_best_epoch(data):
    found = fit(data, STOPPING)
    assert found.status is Status.EARLY_STOP
    epochs = range(1, int(found.num_passes) + 1)
    losses = [held_out_loss(data, *by_autograd(data, STOPPING, n)) for n in epochs]
    assert found.validation_cross_entropy == pytest.approx(min(losses), rel=1e-4)
    assert held_out_loss(data, found.weight, found.bias) == pytest.approx(min(losses), rel=1e-4)
    assert losses.index(min(losses)) == len(losses) - 1 - STOPPING.patience


def test_best_epoch_is_kept_where_the_epochs_run_out(data):
    whole = fit(data, STOPPING)
    cut = fit(data, replace(STOPPING, max_epochs=int(whole.num_passes) - 1))
    assert cut.status is Status.EPOCH_LIMIT
    assert torch.equal(cut.weight, whole.weight)


def test_epochs_are_reported(data):
    reports = []
    fit(data, MOMENTUM, on_solve=lambda *report: reports.append(report))
    stages, rates, epochs, losses = zip(*reports, strict=True)
    assert set(stages) == {"epoch"}
    assert epochs == (1, 2, 3, 4)
    assert rates == (0.1, 0.05, 0.025, 0.0125)  # four batches an epoch, halved every five
    assert losses[0] > losses[-1] > 0


def test_features_that_are_not_finite_are_said(data):
    data[0][-1, 0] = torch.inf
    found = fit(data)
    assert (found.status, found.num_features) == (Status.NONFINITE_FEATURES, 8)


def test_a_learning_rate_that_overflows_is_a_divergence(data):
    found = fit(data, replace(MOMENTUM, learning_rate=1e39))
    assert found.status is Status.DIVERGED
    assert found.reason == "a weight was not finite; lower learning_rate"


def test_features_and_global_randomness_are_left_alone(data):
    before, state = data[0].clone(), torch.get_rng_state()
    fit(data)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(data[0], before)


def test_seed_decides_everything(data):
    first, again, other = (fit(data, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


def test_a_probe_within_the_tolerance_is_converged(data):
    assert fit(data, tol=1e9).status is Status.CONVERGED


def test_learning_rate_falls_in_steps():
    every = replace(MOMENTUM, decay_batches=3)
    assert [every.learning_rate_at(step, 9) for step in range(7)] == [0.1] * 3 + [0.05] * 3 + [
        0.025
    ]
    epochs = replace(MOMENTUM, decay_batches=None)
    assert [epochs.learning_rate_at(step, step // 2) for step in range(4)] == [0.1, 0.1, 0.05, 0.05]
    assert ADAM.learning_rate_at(10**6, 10**3) == ADAM.learning_rate


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "lbfgs"}, "unknown optimizer 'lbfgs'; expected one of: sgd, adam"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; expected a positive number"),
        ({"learning_rate": math.inf}, "learning_rate is inf; expected a positive number"),
        ({"decay": math.nan}, "decay is nan; expected a positive number"),
        ({"certificate_l2": -1.0}, "certificate_l2 is -1.0; expected a positive number"),
        ({"momentum": 1.0}, "momentum is 1.0; expected 0 or more and below 1"),
        ({"max_epochs": 0}, "max_epochs is 0; expected a whole number from 1 on"),
        ({"patience": 0}, "patience is 0; expected a whole number from 1 on"),
        ({"decay_batches": 0}, "decay_batches is 0; expected a whole number from 1 on"),
        ({"batch_size": 0}, "batch_size is 0; expected a whole number from 1 on"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(LinprobeError, match=message):
        replace(ADAM, **change)


@pytest.mark.parametrize(("protocol", "num_fit"), [(ADAM, 0), (STOPPING, 140)])
def test_rows_are_needed_on_both_sides(data, protocol, num_fit):
    with pytest.raises(LinprobeError, match="are to be trained on; expected at least one"):
        fit(data, protocol, num_fit)
