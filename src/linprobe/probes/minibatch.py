"""A probe trained by minibatches on raw features, the usual way: the baseline of certified probes.

The gradient of softmax regression is written out, ``(softmax(z) - e_y) x^T / batch_size``: rows are
gathered a few megabytes at a time, and both products read them where they still are in the cache.
"""

import time
from dataclasses import dataclass
from math import inf, isfinite
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from linprobe.core.features import FeatureMatrix
from linprobe.core.linalg import class_logits
from linprobe.core.losses import Softmax
from linprobe.core.solvers.base import Status
from linprobe.probes.base import FailedProbe, FittedProbe, OnSolve, Targets
from linprobe.probes.checks import all_finite, nonfinite
from linprobe.probes.given import TrainedProbe, certify_trained
from linprobe.probes.optimizers import Update, adam_update, sgd_update
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.numbers import momentum_number, positive_number, whole_number
from linprobe.runtime.randomness import generator
from linprobe.runtime.threads import NARROW, side_by_side

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


class _Affine:
    """Weight (K, n_features) and bias (K,), views of one vector."""

    def __init__(self, flat: Tensor, num_classes: int) -> None:
        self.flat, self.num_classes = flat, num_classes
        self.weight, self.bias = flat[:-num_classes].view(num_classes, -1), flat[-num_classes:]

    def zeros(self) -> "_Affine":
        """Return zeros of the same shapes."""
        return _Affine(torch.zeros_like(self.flat), self.num_classes)


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
        self.order = generator(method.seed, "sgd order")
        self.parameters = self._initial(generator(method.seed, f"sgd/{method.layer}"))
        self.block_rows = max(1, _BLOCK_BYTES // (features.num_features * features.dtype.itemsize))
        # Products of a few megabytes are too small to be shared out; so are whole minibatches of
        # narrow layers, but not parts of wide ones.
        shared = features.device.type == "cpu" and features.num_features > NARROW
        num_parts = torch.get_num_threads() if shared else 1
        self.gradients = [self.parameters.zeros() for _ in range(num_parts)]
        self.update = self._make_update()
        self.step = 0

    def _initial(self, draws: torch.Generator) -> "_Affine":
        num_classes, features = self.targets.num_classes, self.features
        weight = torch.empty(num_classes, features.num_features, dtype=features.dtype)
        nn.init.xavier_uniform_(weight, generator=draws)
        flat = torch.cat([weight.view(-1), weight.new_zeros(num_classes)])
        return _Affine(flat.to(features.device), num_classes)

    def run(self, on_solve: OnSolve | None) -> TrainedProbe:
        """Train until the probe stops, diverges, or the epochs run out."""
        started, patience = time.perf_counter(), self.protocol.patience
        best, best_loss, since_best = self.parameters.flat, inf, 0
        status = Status.EPOCH_LIMIT
        for epoch in range(self.protocol.max_epochs):
            loss = self._train_epoch(epoch)
            if on_solve is not None:
                on_solve("epoch", self.protocol.learning_rate_at(self.step, epoch), epoch + 1, loss)
            if not isfinite(loss) or not bool(torch.isfinite(self.parameters.flat).all()):
                status = Status.DIVERGED
                break
            if patience is None:
                continue
            held_out = self._held_out_loss()
            since_best += 1
            if held_out < best_loss:
                best, best_loss, since_best = self.parameters.flat.clone(), held_out, 0
            if since_best >= patience:
                status = Status.EARLY_STOP
                break
        if status is Status.DIVERGED:
            best = torch.full_like(best, torch.nan)
        kept = _Affine(best.double(), self.targets.num_classes)
        seconds = time.perf_counter() - started
        return TrainedProbe(kept.weight, kept.bias, status, epoch + 1, seconds)

    @torch.inference_mode()
    def _train_epoch(self, epoch: int) -> float:
        """Take a step for each minibatch; return the mean loss on the way."""
        losses: list[Tensor] = []
        order = torch.randperm(self.targets.num_fit, generator=self.order)
        for rows in order.to(self.features.device).split(self.protocol.batch_size):
            losses += self._differentiate(rows)
            self.update(self.gradients[0].flat, self.protocol.learning_rate_at(self.step, epoch))
            self.step += 1
        return float(torch.cat(losses).sum(dtype=torch.float64)) / self.targets.num_fit

    def _differentiate(self, rows: Tensor) -> list[Tensor]:
        """Leave a minibatch's gradient in the first of `gradients`; return its rows' losses."""
        if len(self.gradients) == 1:
            return self._gradient(rows, self.gradients[0], len(rows))
        parts = rows.split(-(-len(rows) // len(self.gradients)))
        used = self.gradients[: len(parts)]

        def add(part: tuple[Tensor, _Affine]) -> list[Tensor]:
            return self._gradient(*part, len(rows))

        found = side_by_side(add, zip(parts, used, strict=True), len(parts))
        losses = [own for part in found for own in part]
        for gradient in used[1:]:
            used[0].flat += gradient.flat
        return losses

    def _gradient(self, rows: Tensor, out: "_Affine", batch_size: int) -> list[Tensor]:
        """Compute the losses of these rows, and their part of the gradient, into `out`."""
        out.flat.zero_()
        losses, scale = [], 1 / batch_size
        for start in range(0, len(rows), self.block_rows):
            block = rows[start : start + self.block_rows]
            features = self.features.take(block)
            loss = self._loss(self.targets.labels.index_select(0, block))
            values, probabilities = self._evaluate(features, loss)
            residuals = loss.residuals(probabilities)
            out.weight.addmm_(residuals, features, alpha=scale)
            out.bias.add_(residuals.sum(1), alpha=scale)
            losses.append(values)
        return losses

    def _held_out_loss(self) -> float:
        num_fit = self.targets.num_fit
        total = torch.zeros((), dtype=torch.float64, device=self.features.device)
        held_out = self.features.rows(num_fit, self.features.num_rows)
        labels = self.targets.labels[num_fit:].split(self.block_rows)
        for features, own in zip(held_out.blocks(self.block_rows), labels, strict=True):
            total += self._evaluate(features, self._loss(own))[0].sum(dtype=torch.float64)
        return float(total) / self.targets.num_held_out

    def _loss(self, labels: Tensor) -> Softmax:
        return Softmax(labels, self.targets.num_classes)

    def _evaluate(self, features: Tensor, loss: Softmax) -> tuple[Tensor, Tensor]:
        """Compute losses (m,) and probabilities (K, m) of rows (m, n_features)."""
        logits = class_logits(features, self.parameters.weight)
        logits += self.parameters.bias[:, None]
        return loss.evaluate(loss.margins(logits))

    def _make_update(self) -> Update:
        if self.protocol.optimizer == "sgd":
            return sgd_update(self.parameters.flat, self.protocol.momentum)
        return adam_update(self.parameters.flat)
