"""Training of the figures' networks, batch by batch, from explicit generators."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from linprobe.activations.inference import inference_state
from linprobe.experiments.experiment import OnBatch
from linprobe.experiments.figure5 import Recipe
from linprobe.experiments.networks import ConvNet, DeepMLP
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.numbers import momentum_number, positive_number, real_number, whole_number

OptimizerName = Literal["sgd", "rmsprop", "adam"]
OPTIMIZERS: tuple[str, ...] = get_args(OptimizerName)

_REPORT_EVERY = 20
_DONE = "minibatches"


@dataclass(frozen=True)
class ConvNetTraining:
    """A recipe's training of the convolutional network, by stochastic gradient descent.

    Attributes:
        batch_size: samples a minibatch.
        penalty: factor of ``1/2 * sum of squares`` of the dense layers' weights and biases.
        learning_rate: at the start; momentum is .9.
        decay: factor of the learning rate, applied every `decay_batches` minibatches, or, where
            that is None, whenever as many samples have been seen as are trained on.
        num_train: the last this many of the training images are trained on.
    """

    batch_size: int
    penalty: float
    learning_rate: float
    decay: float
    decay_batches: int | None
    num_train: int

    def num_minibatches(self, num_images: int, epochs: int) -> int:
        """Full minibatches in `epochs` epochs of the images that are trained on, at least 1."""
        return max(1, epochs * min(num_images, self.num_train) // self.batch_size)

    def decay_at(self, step: int, num_samples: int) -> float:
        """Return the factor of the learning rate at minibatch `step`, counted from 0."""
        every = self.decay_batches
        return self.decay ** (step // every if every else step * self.batch_size // num_samples)


CONVNET_TRAINING: dict[Recipe, ConvNetTraining] = {
    # The TensorFlow tutorial: 5e-4 * l2_loss, with l2_loss = half the sum of squares.
    "paper": ConvNetTraining(64, 5e-4, 0.01, 0.95, None, 55_000),
    # Keras' l2(5e-4) has no half.
    "course": ConvNetTraining(512, 1e-3, 0.01, 0.95, 50_000, 50_000),
}


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


def minibatches(num_samples: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless index batches (size,) int64; each epoch is a new random order of all samples.

    An epoch's last batch is filled up from the next epoch, so every batch is full.

    Args:
        num_samples: in an epoch, at least 1.
        size: of a batch.
        generator: of the orders, on the CPU.
    """
    left = torch.empty(0, dtype=torch.int64)
    while True:
        while len(left) < size:
            left = torch.cat([left, torch.randperm(num_samples, generator=generator)])
        yield left[:size]
        left = left[size:]


def train_convnet(
    network: ConvNet,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int = 10,
    generator: torch.Generator,
    on_batch: OnBatch | None = None,
) -> int:
    """Train in place by the network's recipe; ends in evaluation mode.

    Args:
        network: freshly initialised.
        images: (n, 28, 28) uint8; by the recipe the first ones are left for validation.
        labels: (n,) int64.
        epochs: passes over the training part.
        generator: of minibatches and dropout, on the CPU. The same one in the same state gives
            the same network on a CPU with the same number of threads.
        on_batch: progress.

    Returns:
        Number of minibatches trained.

    Raises:
        LinprobeError: No images, or not one label for each.
    """
    _check(images, labels)
    how = CONVNET_TRAINING[network.recipe]
    device = next(network.parameters()).device
    images, labels = images[-how.num_train :].to(device), labels[-how.num_train :].to(device)
    optimizer = _convnet_optimizer(network, how)
    schedule = LambdaLR(optimizer, lambda step: how.decay_at(step, len(images)))
    batches = minibatches(len(images), how.batch_size, generator)
    total = how.num_minibatches(len(images), epochs)
    # oneDNN's convolutions of channels-last tensors need no reordering on the way in and out.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()
    with _random_dropout(device, generator):
        for step in range(total):
            index = next(batches).to(device)
            loss = _step(network, optimizer, network.preprocess(images[index]), labels[index])
            schedule.step()
            if on_batch is not None and _is_report(step + 1, total):
                on_batch(step + 1, total, float(loss))
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    network.eval()
    return total


class ConvNetTrainer:
    """Trains the convolutional network once, by `train_convnet`: a `Trainer`.

    Args:
        network: trained in place, on its device.
        images: (n, 28, 28) uint8.
        labels: (n,) int64.
        epochs: passes over the training part.
        generator: of minibatches and dropout, on the CPU.
    """

    def __init__(
        self,
        network: ConvNet,
        images: Tensor,
        labels: Tensor,
        epochs: int,
        generator: torch.Generator,
    ) -> None:
        self._network, self._images, self._labels = network, images, labels
        self._epochs, self._generator = epochs, generator

    def advance(self, num_minibatches: int, on_batch: OnBatch | None = None) -> None:
        """Train all epochs, which have so many minibatches."""
        train_convnet(
            *(self._network, self._images, self._labels),
            epochs=self._epochs,
            generator=self._generator,
            on_batch=on_batch,
        )

    def state(self) -> dict[str, Tensor]:
        """Give nothing: there is no further training."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Do nothing."""


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
        _check(images, labels)
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
            loss = _step(self.network, self._optimizer, inputs, self._labels[index])
            self._schedule.step()
            self.num_minibatches += 1
            if on_batch is not None and _is_report(done, num_minibatches):
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


def network_error_rate(
    network: Any, images: Tensor, labels: Tensor, *, batch_size: int = 500
) -> float:
    """Measure the fraction of wrong predictions on uint8 images (n, 28, 28) with labels (n,) int64.

    Raises:
        LinprobeError: No images, or not one label for each.
    """
    _check(images, labels)
    device = next(network.parameters()).device
    wrong = 0
    with inference_state(network):
        for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            prediction = network(network.preprocess(x.to(device))).argmax(1).cpu()
            wrong += int((prediction != y.cpu()).sum())
    return wrong / len(labels)


def _convnet_optimizer(network: ConvNet, how: ConvNetTraining) -> torch.optim.Optimizer:
    dense = [*network.fc1.parameters(), *network.logits.parameters()]
    convolutions = [*network.conv1.parameters(), *network.conv2.parameters()]
    # Weight decay p adds p * theta to the gradient: the gradient of p / 2 * ||theta||^2.
    groups: list[dict[str, Any]] = [
        {"params": convolutions},
        {"params": dense, "weight_decay": how.penalty},
    ]
    return torch.optim.SGD(groups, lr=how.learning_rate, momentum=0.9, fused=True)


def _mlp_optimizer(network: nn.Module, training: MLPTraining) -> torch.optim.Optimizer:
    parameters = list(network.parameters())
    lr = training.learning_rate
    # One call for all of a deep network's many small tensors; RMSprop has no fused form.
    if training.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=training.momentum, fused=True)
    if training.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=lr, foreach=True)
    return torch.optim.Adam(parameters, lr=lr, fused=True)


@contextmanager
def _random_dropout(device: torch.device, generator: torch.Generator) -> Iterator[None]:
    """Dropout takes the global random numbers: seed them from `generator`, then put them back."""
    seed = int(torch.randint(2**62, (), generator=generator))
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        # Not torch.manual_seed, which seeds every GPU there is.
        if gpus:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)
        yield


def _step(
    network: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, labels: Tensor
) -> Tensor:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(network(inputs), labels)
    loss.backward()
    optimizer.step()
    return loss.detach()


def _is_report(done: int, total: int) -> bool:
    return done % _REPORT_EVERY == 0 or done == total


def _check(images: Tensor, labels: Tensor) -> None:
    if len(images) == 0 or len(images) != len(labels):
        raise LinprobeError(
            f"there are {len(images)} images and {len(labels)} labels; expected one label for "
            "each of at least one image"
        )
