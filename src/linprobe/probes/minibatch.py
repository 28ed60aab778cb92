"""A probe trained by minibatches on raw features, the usual way: the baseline of certified probes.

The gradient of softmax regression is written out, ``(softmax(z) - e_y) x^T / batch_size``: rows are
gathered a few megabytes at a time, and both products read them where they still are in the cache.
"""

import time
from dataclasses import dataclass
from functools import partial
from math import inf, isfinite
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from linprobe.core.features import FeatureMatrix
from linprobe.core.linalg import class_logits
from linprobe.core.losses import Softmax
from linprobe.core.solvers.base import Status
from linprobe.probes.base import (
    FailedProbe,
    FittedProbe,
    OnSolve,
    Targets,
    all_finite,
    nonfinite,
)
from linprobe.probes.given import TrainedProbe, certify_trained
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.numbers import momentum_number, positive_number, whole_number
from linprobe.runtime.randomness import generator
from linprobe.runtime.threads import side_by_side

SGDOptimizer = Literal["sgd", "adam"]
SGD_OPTIMIZERS: tuple[str, ...] = get_args(SGDOptimizer)

_BLOCK_BYTES = 6 * 2**20  # of rows that both products of a step read from the cache


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


class MinibatchProbe:
    """Softmax regression trained by minibatches, certified as it is; a `ProbeMethod`.

    Args:
        protocol: the training.
        tol: duality gap (nats) up to which the probe counts as converged.
        seed: of the initial weights and of the order of the samples, which is that of all layers.
        layer: name, for initial weights of its own.
    """

    def __init__(self, protocol: SGDProtocol, tol: float, seed: int, layer: str) -> None:
        self.protocol, self.tol, self.seed, self.layer = protocol, tol, seed, layer

    def prepare(
        self, features: FeatureMatrix, targets: Targets | None = None
    ) -> FeatureMatrix | FailedProbe:
        """Return the raw features, if they are finite."""
        return features if all_finite(features) else nonfinite(features, 0)

    def fit(
        self, features: FeatureMatrix, targets: Targets, on_solve: OnSolve | None = None
    ) -> FittedProbe | FailedProbe:
        """Train the probe on the rows that are not held out, and certify it.

        Args:
            features: (n_train, n_features), raw. Where they are owned, those that are not held
                out are overwritten by their standardised form.
            targets: labels, and how many rows at the end are held out for an early stop.
            on_solve: called after each epoch with "epoch", the learning rate, the number of epochs
                and the mean training cross-entropy (nats) during the last one.

        Raises:
            LinprobeError: No rows to train on, or none held out where `patience` needs some.
        """
        prepared = self.prepare(features)
        if isinstance(prepared, FailedProbe):
            return prepared
        trained = _Training(prepared, targets, self).run(on_solve)
        return certify_trained(trained, prepared, targets, self.protocol.certificate_l2, self.tol)


class _Training:
    """One probe in training."""

    def __init__(self, features: FeatureMatrix, targets: Targets, method: MinibatchProbe) -> None:
        self.features, self.targets, self.protocol = features, targets, method.protocol
        num_fit, needs_held_out = targets.num_fit, method.protocol.patience is not None
        if num_fit < 1 or (needs_held_out and not targets.num_held_out):
            raise LinprobeError(
                f"{num_fit} of {features.num_rows} samples are to be trained on; expected at "
                "least one, and at least one held out for an early stop"
            )
        shape, device = (targets.num_classes, features.num_features), features.device
        weight = torch.empty(*shape, dtype=features.dtype)
        nn.init.xavier_uniform_(weight, generator=generator(method.seed, f"sgd/{method.layer}"))
        self.weight = weight.to(device)
        self.bias = torch.zeros(targets.num_classes, dtype=features.dtype, device=device)
        self.weight_gradient, self.bias_gradient = map(torch.zeros_like, (self.weight, self.bias))
        self.order = generator(method.seed, "sgd order")
        self.optimizer = self._make_optimizer()
        self.block_rows = max(1, _BLOCK_BYTES // (features.num_features * features.dtype.itemsize))
        # Products of a few megabytes are too small to be shared out; parts of a minibatch are not.
        self.num_workers = torch.get_num_threads() if device.type == "cpu" else 1
        self.step = 0

    def run(self, on_solve: OnSolve | None) -> TrainedProbe:
        """Train until the probe stops, diverges, or the epochs run out."""
        started, patience = time.perf_counter(), self.protocol.patience
        best, best_loss, since_best = (self.weight, self.bias), inf, 0
        status = Status.EPOCH_LIMIT
        for epoch in range(self.protocol.max_epochs):
            loss = self._train_epoch(epoch)
            if on_solve is not None:
                on_solve("epoch", self.protocol.learning_rate_at(self.step, epoch), epoch + 1, loss)
            if not isfinite(loss) or not all(map(_is_finite, (self.weight, self.bias))):
                status = Status.DIVERGED
                break
            if patience is None:
                continue
            held_out = self._held_out_loss()
            since_best += 1
            if held_out < best_loss:
                best, best_loss, since_best = (self.weight.clone(), self.bias.clone()), held_out, 0
            if since_best >= patience:
                status = Status.EARLY_STOP
                break
        weight, bias = (tensor.double() for tensor in best)
        if status is Status.DIVERGED:
            weight, bias = torch.full_like(weight, torch.nan), torch.full_like(bias, torch.nan)
        return TrainedProbe(weight, bias, status, epoch + 1, time.perf_counter() - started)

    def _train_epoch(self, epoch: int) -> float:
        """Take a step for each minibatch; return the mean loss on the way."""
        num_fit, loss = self.targets.num_fit, 0.0
        for rows in torch.randperm(num_fit, generator=self.order).split(self.protocol.batch_size):
            rate = self.protocol.learning_rate_at(self.step, epoch)
            self.optimizer.param_groups[0]["lr"] = rate
            self.weight_gradient.zero_()
            self.bias_gradient.zero_()
            parts = rows.to(self.features.device).split(-(-len(rows) // self.num_workers))
            add = partial(self._gradient, batch_size=len(rows))
            for value, weight, bias in side_by_side(add, parts, len(parts)):
                loss += value
                self.weight_gradient += weight
                self.bias_gradient += bias
            self.optimizer.step()
            self.step += 1
        return loss / num_fit

    def _gradient(self, rows: Tensor, batch_size: int) -> tuple[float, Tensor, Tensor]:
        """Compute the summed loss of these rows, and their part of the gradient."""
        weight, bias = torch.zeros_like(self.weight), torch.zeros_like(self.bias)
        total = bias.new_zeros((), dtype=torch.float64)
        for block in rows.split(self.block_rows):
            features, loss = self.features.take(block), self._loss(self.targets.labels[block])
            values, probabilities = self._evaluate(features, loss)
            residuals = loss.residuals(probabilities).div_(batch_size)
            weight.addmm_(residuals, features)
            bias += residuals.sum(1)
            total += values.sum(dtype=torch.float64)
        return float(total), weight, bias

    def _held_out_loss(self) -> float:
        total, num_fit = self.bias.new_zeros((), dtype=torch.float64), self.targets.num_fit
        held_out = self.features.rows(num_fit, self.features.num_rows)
        labels = self.targets.labels[num_fit:].split(self.block_rows)
        for features, own in zip(held_out.blocks(self.block_rows), labels, strict=True):
            total += self._evaluate(features, self._loss(own))[0].sum(dtype=torch.float64)
        return float(total) / self.targets.num_held_out

    def _loss(self, labels: Tensor) -> Softmax:
        return Softmax(labels, self.targets.num_classes)

    def _evaluate(self, features: Tensor, loss: Softmax) -> tuple[Tensor, Tensor]:
        """Compute losses (m,) and probabilities (K, m) of rows (m, n_features)."""
        logits = class_logits(features, self.weight).add_(self.bias[:, None])
        return loss.evaluate(loss.margins(logits))

    def _make_optimizer(self) -> torch.optim.Optimizer:
        parameters = [nn.Parameter(self.weight), nn.Parameter(self.bias)]  # of the same memory
        gradients = self.weight_gradient, self.bias_gradient
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        lr = self.protocol.learning_rate
        if self.protocol.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=lr, momentum=self.protocol.momentum, fused=True)
        return torch.optim.Adam(parameters, lr=lr, fused=True)


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
