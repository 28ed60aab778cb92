"""Probes trained by SGD on raw features, the usual way: the baseline of certified probes.

All probes of a network state are trained at once: each minibatch takes one forward pass, no
further than the last probe that still trains. Their losses are independent, so each probe is the
one that it would be alone: own initial weights, own optimiser state, own stop.

The gradient of softmax regression is written out, ``(softmax(z) - e_y) x^T / batch_size``, where
the forward pass stands at the layer: no graph is kept, and no layer's features outlive their use.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from linprobe.activations.taps import Taps
from linprobe.core.solvers.base import Status
from linprobe.probes.given import TrainedProbe
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.numbers import momentum_number, positive_number, whole_number
from linprobe.runtime.randomness import generator

SGDOptimizer = Literal["sgd", "adam"]
SGD_OPTIMIZERS: tuple[str, ...] = get_args(SGDOptimizer)


@dataclass(frozen=True)
class SGDProtocol:
    """Settings of the training: no penalty, Glorot-uniform weights, zero biases (Keras' defaults).

    Attributes:
        optimizer: "sgd" (with `momentum`) or "adam".
        learning_rate: at the start.
        momentum: of "sgd".
        decay: factor of the learning rate, applied every `decay_batches` minibatches, or, where
            that is None, after every epoch.
        decay_batches: see `decay`.
        batch_size: samples a minibatch; the last of an epoch holds what is left.
        max_epochs: passes over the rows that are not held out.
        patience: a probe stops when its held-out cross-entropy has not improved for so many
            epochs in a row, and the weights of its best epoch are kept, also where `max_epochs`
            ends it. None: no early stop; the last weights are kept.
        certificate_l2: the probes have no penalty, so no optimum; their distance from one is
            certified for this small penalty.
    """

    optimizer: SGDOptimizer
    learning_rate: float
    max_epochs: int
    patience: int | None = None
    momentum: float = 0.9
    decay: float = 1.0
    decay_batches: int | None = None
    batch_size: int = 512
    certificate_l2: float = 1e-6

    def __post_init__(self) -> None:
        if self.optimizer not in SGD_OPTIMIZERS:
            known = ", ".join(SGD_OPTIMIZERS)
            raise LinprobeError(f"unknown optimizer {self.optimizer!r}; expected one of: {known}")
        for name in ("learning_rate", "decay", "certificate_l2"):
            object.__setattr__(self, name, positive_number(name, getattr(self, name)))
        object.__setattr__(self, "momentum", momentum_number(self.momentum))
        for name in ("max_epochs", "patience", "decay_batches", "batch_size"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, whole_number(name, value, 1))

    def learning_rate_at(self, step: int, epoch: int) -> float:
        """Learning rate of minibatch `step` in epoch `epoch`, both counted from 0."""
        decays = step // self.decay_batches if self.decay_batches else epoch
        return self.learning_rate * self.decay**decays


@dataclass(frozen=True)
class EpochReport:
    """Progress of the training after an epoch.

    Attributes:
        epoch: finished ones.
        active: probes that go on.
        mean_loss: training cross-entropy in nats during the epoch, the mean over its probes whose
            loss is finite.
        share: of the probes' epochs that are done or will not be needed, 0 to 1.
    """

    epoch: int
    active: int
    mean_loss: float
    share: float


OnEpoch = Callable[[EpochReport], None]


def train_probes(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    taps: Mapping[str, int],
    protocol: SGDProtocol,
    *,
    num_classes: int,
    num_fit: int,
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
) -> dict[str, TrainedProbe]:
    """Train a probe at each tap, all at once.

    Args:
        network: left as it was, on the device that it is on.
        inputs: (n_samples, ...), moved to the network's device a batch at a time.
        labels: (n_samples,) int64.
        taps: as `linprobe.activations.taps` writes them, to the number of features of each.
        protocol: how.
        num_classes: K.
        num_fit: rows that are trained on; those after them are held out for the early stop.
        seed: of the initial weights, a generator of its own for each tap, and of the sample order,
            which does not depend on the taps.
        on_epoch: called after each epoch.

    Returns:
        Tap to its probe, in the order of `taps`. One that diverges keeps no weights (NaN), and
        does not touch the others.

    Raises:
        LinprobeError: No rows to train on, or none held out where `patience` needs some.
    """
    if not 0 < num_fit <= len(inputs) or (protocol.patience and num_fit == len(inputs)):
        raise LinprobeError(
            f"{num_fit} of {len(inputs)} samples are to be trained on; expected at least one, and "
            "at least one held out for an early stop"
        )
    device = next(network.parameters(), inputs).device
    probes = {
        tap: _Probe(width, num_classes, generator(seed, f"sgd/{tap}"), device, inputs.dtype)
        for tap, width in taps.items()
    }
    data = _Data(network, inputs, labels.to(device), num_fit, device)
    trainer = _Trainer(data, probes, protocol)
    order = generator(seed, "sgd order")
    for epoch in range(protocol.max_epochs):
        report = trainer.run_epoch(epoch, order)
        if on_epoch is not None:
            on_epoch(report)
        if not report.active:
            break
    return {tap: probe.result() for tap, probe in probes.items()}


class _Probe:
    """One probe in training."""

    def __init__(
        self,
        width: int,
        num_classes: int,
        generator: torch.Generator,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        weight = torch.empty(num_classes, width, dtype=dtype)
        nn.init.xavier_uniform_(weight, generator=generator)
        self.weight = nn.Parameter(weight.to(device))
        self.bias = nn.Parameter(torch.zeros(num_classes, dtype=dtype, device=device))
        self.loss = self.weight.new_zeros((), dtype=torch.float64)  # summed over samples
        self.status: Status | None = None  # None: it goes on
        self.best: tuple[Tensor, Tensor] | None = None
        self.best_loss, self.since_best = inf, 0
        self.epochs, self.seconds = 0, 0.0

    def forward(self, features: Tensor, labels: Tensor, *, learn: bool) -> None:
        """Add the loss of a minibatch (n, n_features), and set gradients of its mean."""
        log_p = torch.addmm(self.bias, features, self.weight.T).log_softmax(1)
        own = log_p.gather(1, labels[:, None])
        self.loss -= own.sum(dtype=torch.float64)
        if learn:
            residuals = log_p.exp_()
            residuals.scatter_add_(1, labels[:, None], torch.full_like(own, -1.0))
            residuals /= len(labels)
            self.weight.grad, self.bias.grad = residuals.T @ features, residuals.sum(0)

    def take_loss(self, num_samples: int) -> float:
        """Mean loss since the last call."""
        loss = float(self.loss) / num_samples
        self.loss.zero_()
        return loss

    def judge(self, held_out_loss: float, patience: int) -> None:
        """Keep the best weights; stop when there has been no better epoch for too long."""
        if held_out_loss < self.best_loss:
            self.best_loss, self.since_best = held_out_loss, 0
            self.best = self.weight.detach().clone(), self.bias.detach().clone()
            return
        self.since_best += 1
        if self.since_best >= patience:
            self.status = Status.EARLY_STOP

    def result(self) -> TrainedProbe:
        """Return the trained probe."""
        weight, bias = self.best or (self.weight.detach(), self.bias.detach())
        weight, bias = weight.double(), bias.double()
        status = self.status or Status.EPOCH_LIMIT
        if status is Status.DIVERGED:
            weight, bias = torch.full_like(weight, torch.nan), torch.full_like(bias, torch.nan)
        return TrainedProbe(weight, bias, status, self.epochs, self.seconds)


@dataclass(frozen=True)
class _Data:
    """Training data of all probes; the last rows are held out."""

    network: nn.Module
    inputs: Tensor
    labels: Tensor
    num_fit: int
    device: torch.device

    def run(self, taps: Taps, probes: Mapping[str, _Probe], rows: Tensor, *, learn: bool) -> None:
        """One forward pass over `rows`, with each probe's own beside it."""
        batch = self.inputs[rows].to(self.device)
        labels = self.labels[rows.to(self.device)]

        def consume(tap: str, tensor: Tensor) -> None:
            features = tensor.reshape(len(labels), -1)
            with torch.no_grad():
                probes[tap].forward(features, labels, learn=learn)

        taps.stream(consume, batch)


class _Trainer:
    """Epochs of all probes that are not stopped."""

    def __init__(self, data: _Data, probes: dict[str, _Probe], protocol: SGDProtocol) -> None:
        self.data, self.probes, self.protocol = data, probes, protocol
        self.step = 0
        self.taps = Taps(data.network, list(probes))
        parameters = [p for probe in probes.values() for p in (probe.weight, probe.bias)]
        lr = protocol.learning_rate
        self.optimizer: torch.optim.Optimizer
        if protocol.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(
                parameters, lr=lr, momentum=protocol.momentum, fused=True
            )
        else:
            self.optimizer = torch.optim.Adam(parameters, lr=lr, fused=True)

    def run_epoch(self, epoch: int, order: torch.Generator) -> EpochReport:
        """Train each active probe for an epoch, and stop those that are done."""
        started = time.perf_counter()
        data, protocol = self.data, self.protocol
        active = {tap: self.probes[tap] for tap in self.taps.names}
        for rows in torch.randperm(data.num_fit, generator=order).split(protocol.batch_size):
            for group in self.optimizer.param_groups:
                group["lr"] = protocol.learning_rate_at(self.step, epoch)
            # Without a gradient a stopped probe is passed over, its optimiser state included.
            self.optimizer.zero_grad(set_to_none=True)
            data.run(self.taps, active, rows, learn=True)
            self.optimizer.step()
            self.step += 1
        losses = [probe.take_loss(data.num_fit) for probe in active.values()]
        for probe, loss in zip(active.values(), losses, strict=True):
            probe.epochs += 1
            if not isfinite(loss) or not _all_finite(probe.weight, probe.bias):
                probe.status = Status.DIVERGED
        self._keep_active()
        if protocol.patience and self.taps.names:
            self._hold_out(protocol.patience)
            self._keep_active()
        seconds = (time.perf_counter() - started) / len(active)
        for probe in active.values():
            probe.seconds += seconds
        finite = [loss for loss in losses if isfinite(loss)]
        more = protocol.max_epochs - epoch - 1
        return EpochReport(
            epoch=epoch + 1,
            active=len(self.taps.names) if more else 0,
            mean_loss=sum(finite) / len(finite) if finite else float("nan"),
            share=1 - len(self.taps.names) * more / (len(self.probes) * protocol.max_epochs),
        )

    def _hold_out(self, patience: int) -> None:
        data = self.data
        active = {tap: self.probes[tap] for tap in self.taps.names}
        rows = torch.arange(data.num_fit, len(data.inputs))
        for part in rows.split(self.protocol.batch_size):
            data.run(self.taps, active, part, learn=False)
        for probe in active.values():
            probe.judge(probe.take_loss(len(rows)), patience)

    def _keep_active(self) -> None:
        """Leave out the taps of probes that are done, and so the layers after the last one."""
        names = [tap for tap in self.taps.names if self.probes[tap].status is None]
        if len(names) < len(self.taps.names):
            self.taps = Taps(self.data.network, names)


def _all_finite(*tensors: Tensor) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
