"""Probes trained by minibatches: each is what it would be alone, and what autograd would train."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from linprobe.core.solvers.base import Status
from linprobe.pipeline.minibatch import SGDProtocol, train_probes
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.randomness import generator

ADAM = SGDProtocol("adam", 1e-2, max_epochs=6, batch_size=32)
MOMENTUM = SGDProtocol("sgd", 0.1, max_epochs=4, batch_size=32, decay=0.5, decay_batches=5)
K, NUM_FIT = 3, 100
TAPS = {"0": 8, "2": 6, "4": 5}


class Counted(nn.Linear):
    """Counts its calls."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(3)
        layers = (nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 6), nn.Dropout())
        return nn.Sequential(*layers, Counted(6, 5)).requires_grad_(False)


@pytest.fixture
def data():
    source = torch.Generator().manual_seed(1)
    inputs = torch.randn(140, 4, generator=source)
    noise = torch.randn(140, K, generator=source)
    return inputs, (inputs[:, :K] + noise).argmax(1)


def train(network, data, taps=TAPS, protocol=ADAM, num_fit=NUM_FIT, **more):
    return train_probes(network, *data, taps, protocol, num_classes=K, num_fit=num_fit, **more)


def features_of(network, inputs, tap):
    return network.eval()[: int(tap) + 1](inputs)


def by_autograd(network, data, tap, protocol, epochs):
    """One layer by torch's own means: linear layer, loss, optimiser."""
    x, y = features_of(network, data[0], tap)[:NUM_FIT], data[1][:NUM_FIT]
    probe = nn.Linear(x.shape[1], K)
    nn.init.xavier_uniform_(probe.weight, generator=generator(0, f"sgd/{tap}"))
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


@pytest.mark.parametrize("protocol", [ADAM, MOMENTUM], ids=lambda p: p.optimizer)
def test_probes_are_those_of_autograd(network, data, protocol):
    found = train(network, data, protocol=protocol)
    assert list(found) == list(TAPS)
    for tap, probe in found.items():
        weight, bias = by_autograd(network, data, tap, protocol, protocol.max_epochs)
        torch.testing.assert_close(probe.weight, weight, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(probe.bias, bias, rtol=1e-4, atol=1e-5)
        assert (probe.status, probe.epochs) == (Status.EPOCH_LIMIT, protocol.max_epochs)
        assert probe.weight.dtype == torch.float64


STOPPING = replace(ADAM, learning_rate=0.05, max_epochs=60, patience=2)


def held_out_loss(network, data, tap, weight, bias):
    logits = features_of(network, data[0][NUM_FIT:], tap).double() @ weight.T + bias
    return float(nn.functional.cross_entropy(logits, data[1][NUM_FIT:]))


@pytest.mark.parametrize("protocol", [ADAM, MOMENTUM, STOPPING], ids=("adam", "sgd", "early stop"))
def test_all_at_once_gives_the_probes_that_each_layer_has_alone(network, data, protocol):
    together = train(network, data, protocol=protocol)
    for tap, width in TAPS.items():
        alone = train(network, data, {tap: width}, protocol)[tap]
        torch.testing.assert_close(together[tap].weight, alone.weight, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(together[tap].bias, alone.bias, rtol=1e-6, atol=1e-7)
        assert (together[tap].status, together[tap].epochs) == (alone.status, alone.epochs)


def test_early_stop_keeps_the_best_epoch_of_each_probe(network, data):
    found = train(network, data, protocol=STOPPING)
    assert {probe.status for probe in found.values()} == {Status.EARLY_STOP}
    assert len({probe.epochs for probe in found.values()}) > 1  # each has its own stop
    for tap, probe in found.items():
        losses = [
            held_out_loss(network, data, tap, *by_autograd(network, data, tap, STOPPING, epochs))
            for epochs in range(1, probe.epochs + 1)
        ]
        kept = held_out_loss(network, data, tap, probe.weight, probe.bias)
        assert kept == pytest.approx(min(losses), rel=1e-4)
        assert losses.index(min(losses)) == len(losses) - 1 - STOPPING.patience


def test_best_epoch_is_kept_where_the_epochs_run_out(network, data):
    whole = train(network, data, protocol=STOPPING)["0"]
    short = replace(STOPPING, max_epochs=whole.epochs - 1)
    cut = train(network, data, protocol=short)["0"]
    assert cut.status is Status.EPOCH_LIMIT
    torch.testing.assert_close(cut.weight, whole.weight, rtol=1e-6, atol=1e-7)


def test_forward_passes_end_at_the_last_probe_that_trains(network, data):
    """Once the probe of layer 4 has stopped, layer 4 is called no more."""
    epochs = {tap: probe.epochs for tap, probe in train(network, data, protocol=STOPPING).items()}
    network[4].calls = 0
    reports = []
    train(network, data, protocol=STOPPING, on_epoch=reports.append)
    batches = math.ceil(NUM_FIT / 32) + math.ceil((140 - NUM_FIT) / 32)
    assert network[4].calls == epochs["4"] * batches
    assert max(epochs.values()) > epochs["4"]
    assert len(reports) == max(epochs.values())
    assert reports[-1].active == 0


def test_reports_rise_to_one(network, data):
    for protocol in (ADAM, STOPPING):
        reports = []
        train(network, data, protocol=protocol, on_epoch=reports.append)
        shares = [report.share for report in reports]
        assert shares == sorted(shares)
        assert shares[-1] == 1.0
        assert [report.epoch for report in reports] == list(range(1, len(reports) + 1))
    assert reports[0].mean_loss > reports[-1].mean_loss > 0


class Spoiled(nn.Module):
    """From some call on its output is not finite."""

    def forward(self, x):
        return torch.where(x > 0, x * torch.inf, x)


def test_a_probe_that_diverges_does_not_disturb_the_others(network, data):
    spoiled = nn.Sequential(*network, Spoiled())
    reports = []
    found = train(spoiled, data, {**TAPS, "5": 5}, on_epoch=reports.append)
    assert (found["5"].status, found["5"].epochs) == (Status.DIVERGED, 1)
    assert bool(found["5"].weight.isnan().all())
    assert [report.active for report in reports] == [3] * 5 + [0]
    assert all(math.isfinite(report.mean_loss) for report in reports)
    for tap, probe in train(network, data).items():
        assert torch.equal(found[tap].weight, probe.weight)


def test_a_learning_rate_that_overflows_is_a_divergence(network, data):
    found = train(network, data, protocol=replace(MOMENTUM, learning_rate=1e39))
    assert {probe.status for probe in found.values()} == {Status.DIVERGED}


def test_network_and_global_randomness_are_left_alone(network, data):
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    train(network, data)
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_seed_decides_everything(network, data):
    first, again, other = (train(network, data, seed=seed)["0"] for seed in (1, 1, 2))
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


def test_seconds_are_shared_out(network, data):
    assert all(probe.seconds > 0 for probe in train(network, data).values())


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


@pytest.mark.parametrize(("protocol", "num_fit"), [(ADAM, 0), (ADAM, 141), (STOPPING, 140)])
def test_rows_are_needed_on_both_sides(network, data, protocol, num_fit):
    with pytest.raises(LinprobeError, match="are to be trained on; expected at least one"):
        train(network, data, protocol=protocol, num_fit=num_fit)
