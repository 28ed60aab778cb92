"""Training of Figure 8's deep network, a number of minibatches at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from linprobe.experiments.experiment import OnBatch
from linprobe.experiments.networks import DeepMLP
from linprobe.experiments.training import check_images, is_report, minibatches, train_step
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.numbers import momentum_number, positive_number, real_number, whole_number

OptimizerName = Literal["sgd", "rmsprop", "adam"]
OPTIMIZERS: tuple[str, ...] = get_args(OptimizerName)

_DONE = "minibatches"


@dataclass(frozen=True)
class MLPTraining:
    """Training of the deep network.

    Attributes:
        optimizer: "sgd" (with `momentum`), "rmsprop" or "adam".
        learning_rate: at the start.
        momentum: of "sgd".
        batch_size: samples a minibatch, drawn without replacement within an epoch.
        decay: factor of the learning rate after each epoch of samples.
    """

    optimizer: OptimizerName = "adam"
    learning_rate: float = 1e-4
    momentum: float = 0.9
    batch_size: int = 512
    decay: float = 1.0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            known = ", ".join(OPTIMIZERS)
            raise LinprobeError(f"unknown optimizer {self.optimizer!r}; expected one of: {known}")
        numbers = {
            "learning_rate": positive_number("learning_rate", self.learning_rate),
            "momentum": momentum_number(self.momentum),
            "batch_size": whole_number("batch_size", self.batch_size, 1),
            "decay": real_number(
                "decay", self.decay, "more than 0 and at most 1", lambda x: 0 < x <= 1
            ),
        }
        for name, number in numbers.items():
            object.__setattr__(self, name, number)

    def decay_at(self, step: int, num_samples: int) -> float:
        """Return the factor of the learning rate at minibatch `step`, counted from 0."""
        return self.decay ** (step * self.batch_size // num_samples)


class MLPTrainer:
    """Trains the deep network by a number of minibatches at a time.

    Args:
        network: trained in place, on its device.
        images: (n, 28, 28) uint8.
        labels: (n,) int64.
        training: optimiser and its settings.
        generator: of the minibatches, on the CPU.

    Attributes:
        num_minibatches: trained so far.

    Raises:
        LinprobeError: No images, or not one label for each.
    """

    def __init__(
        self,
        network: DeepMLP,
        images: Tensor,
        labels: Tensor,
        training: MLPTraining,
        generator: torch.Generator,
    ) -> None:
        check_images(images, labels)
        self.network, self.training = network, training
        self.num_minibatches = 0
        device = next(network.parameters()).device
        self._images, self._labels = images.to(device), labels.to(device)
        self._optimizer = _mlp_optimizer(network, training)
        self._schedule = LambdaLR(
            self._optimizer, lambda step: training.decay_at(step, len(images))
        )
        self._batches = minibatches(len(images), training.batch_size, generator)

    def advance(self, num_minibatches: int, on_batch: OnBatch | None = None) -> None:
        """Train `num_minibatches` more; optimiser state and sample order go on from before."""
        self.network.train()
        for done in range(1, num_minibatches + 1):
            index = next(self._batches).to(self._images.device)
            inputs = self.network.preprocess(self._images[index])
            loss = train_step(self.network, self._optimizer, inputs, self._labels[index])
            self._schedule.step()
            self.num_minibatches += 1
            if on_batch is not None and is_report(done, num_minibatches):
                on_batch(done, num_minibatches, float(loss))
        self.network.eval()

    def state(self) -> dict[str, Tensor]:
        """Give what the optimiser knows of each parameter, and the number of minibatches."""
        found: dict[int, dict[str, Any]] = self._optimizer.state_dict()["state"]
        state = {
            f"{number}.{name}": torch.as_tensor(value)
            for number, values in found.items()
            for name, value in values.items()
            if value is not None
        }
        return {_DONE: torch.tensor(self.num_minibatches), **state}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on after the minibatches of a `state`, which may not be fewer than those so far."""
        done = int(state[_DONE])
        # The order of samples depends on the generator alone: it is drawn, and passed over.
        for _ in range(done - self.num_minibatches):
            next(self._batches)
            self._schedule.last_epoch += 1
        self.num_minibatches = done
        known: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            number, _, name = key.partition(".")
            if key != _DONE:
                known.setdefault(int(number), {})[name] = value
        groups = self._optimizer.state_dict()["param_groups"]
        for group, base in zip(groups, self._schedule.base_lrs, strict=True):
            group["lr"] = base * self.training.decay_at(done, len(self._images))
        self._optimizer.load_state_dict({"state": known, "param_groups": groups})


def _mlp_optimizer(network: nn.Module, training: MLPTraining) -> torch.optim.Optimizer:
    parameters = list(network.parameters())
    lr = training.learning_rate
    # One call for all of a deep network's many small tensors; RMSprop has no fused form.
    if training.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=training.momentum, fused=True)
    if training.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=lr, foreach=True)
    return torch.optim.Adam(parameters, lr=lr, fused=True)
