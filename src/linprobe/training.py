"""Training of the figures' networks, batch by batch, from explicit generators."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from linprobe.errors import LinprobeError
from linprobe.networks import ConvNet, DeepMLP, Recipe

OptimizerName = Literal["sgd", "rmsprop", "adam"]
OPTIMIZERS: tuple[str, ...] = get_args(OptimizerName)

OnBatch = Callable[[int, int, float], None]
"""Called as ``on_batch(done, total, loss)`` now and then; loss in nats."""

_REPORT_EVERY = 20


@dataclass(frozen=True)
class ConvNetTraining:
    """How a recipe trains the convolutional network.

    Attributes:
        batch_size: samples a minibatch.
        penalty: factor of ``1/2 * sum of squares`` of the dense layers' weights and biases.
        learning_rate: at the start; momentum is .9.
        decay: factor of the learning rate, applied every `decay_batches` minibatches, or every
            epoch where that is None.
        num_train: the last this many of the 60,000 training images are trained on.
    """

    batch_size: int
    penalty: float
    learning_rate: float
    decay: float
    decay_batches: int | None
    num_train: int


CONVNET_TRAINING: dict[Recipe, ConvNetTraining] = {
    # The TensorFlow tutorial: 5e-4 * l2_loss, with l2_loss = half the sum of squares.
    "paper": ConvNetTraining(64, 5e-4, 0.01, 0.95, None, 55_000),
    # Keras' l2(5e-4) has no half.
    "course": ConvNetTraining(512, 1e-3, 0.01, 0.95, 50_000, 50_000),
}


@dataclass(frozen=True)
class MLPTraining:
    """How the deep network is trained.

    Attributes:
        optimizer: "sgd" (with `momentum`), "rmsprop" or "adam".
        learning_rate: constant.
        momentum: of "sgd".
        batch_size: samples a minibatch, drawn without replacement within an epoch.
    """

    optimizer: OptimizerName = "adam"
    learning_rate: float = 1e-4
    momentum: float = 0.9
    batch_size: int = 512

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            known = ", ".join(OPTIMIZERS)
            raise LinprobeError(f"unknown optimizer {self.optimizer!r}; expected one of: {known}")
        if not self.learning_rate > 0:
            raise LinprobeError(f"learning rate is {self.learning_rate}; expected more than 0")


def minibatches(num_samples: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless index batches; each epoch is a new random order of all samples.

    An epoch's last batch is filled up from the next epoch, so every batch is full.
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
    epochs: int,
    generator: torch.Generator,
    on_batch: OnBatch | None = None,
) -> None:
    """Train in place by the network's recipe; ends in evaluation mode.

    Args:
        network: freshly initialised.
        images: (n, 28, 28) uint8; by the recipe the first ones are left for validation.
        labels: (n,) int64.
        epochs: passes over the training part.
        generator: of minibatches and, through its seed, dropout.
        on_batch: progress.
    """
    how = CONVNET_TRAINING[network.recipe]
    skip = max(0, len(images) - how.num_train)
    images, labels = images[skip:], labels[skip:]
    dense = [*network.fc1.parameters(), *network.logits.parameters()]
    convolutions = [*network.conv1.parameters(), *network.conv2.parameters()]
    # Weight decay p adds p * theta to the gradient: the gradient of p / 2 * ||theta||^2.
    groups = [{"params": convolutions}, {"params": dense, "weight_decay": how.penalty}]
    optimizer = torch.optim.SGD(groups, lr=how.learning_rate, momentum=0.9)
    per_epoch = -(-len(images) // how.batch_size)
    every = how.decay_batches or per_epoch
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=every, gamma=how.decay)
    device = next(network.parameters()).device
    batches = minibatches(len(images), how.batch_size, generator)
    # Convolutions on two cores are 2.6 times faster with channels last.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(generator.initial_seed())  # dropout draws from the global generator
        for done in range(1, epochs * per_epoch + 1):
            index = next(batches)
            inputs = network.preprocess(images[index]).to(device)
            loss = _step(network, optimizer, inputs, labels[index].to(device))
            schedule.step()
            if on_batch is not None and done % _REPORT_EVERY == 0:
                on_batch(done, epochs * per_epoch, float(loss))
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    network.eval()


class MLPTrainer:
    """Trains the deep network by a number of minibatches at a time.

    Args:
        network: trained in place, on its device.
        images: (n, 28, 28) uint8.
        labels: (n,) int64.
        training: optimiser and its settings.
        generator: of the minibatches.
    """

    def __init__(
        self,
        network: DeepMLP,
        images: Tensor,
        labels: Tensor,
        training: MLPTraining,
        generator: torch.Generator,
    ) -> None:
        self.network = network
        self._device = next(network.parameters()).device
        self._inputs, self._labels = network.preprocess(images), labels
        self._optimizer = _mlp_optimizer(network, training)
        self._batches = minibatches(len(images), training.batch_size, generator)

    def advance(self, num_minibatches: int, on_batch: OnBatch | None = None) -> None:
        """Train `num_minibatches` more; optimiser state and sample order go on from before."""
        self.network.train()
        for done in range(1, num_minibatches + 1):
            index = next(self._batches)
            inputs = self._inputs[index].to(self._device)
            targets = self._labels[index].to(self._device)
            loss = _step(self.network, self._optimizer, inputs, targets)
            if on_batch is not None and done % _REPORT_EVERY == 0:
                on_batch(done, num_minibatches, float(loss))
        self.network.eval()


def network_error_rate(
    network: ConvNet | DeepMLP, images: Tensor, labels: Tensor, *, batch_size: int = 500
) -> float:
    """Fraction of wrong predictions on uint8 images (n, 28, 28) with labels (n,) int64."""
    device = next(network.parameters()).device
    wrong = 0
    network.eval()
    with torch.no_grad():
        for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            prediction = network(network.preprocess(x).to(device)).argmax(1).cpu()
            wrong += int((prediction != y).sum())
    return wrong / len(labels)


def _mlp_optimizer(network: nn.Module, training: MLPTraining) -> torch.optim.Optimizer:
    parameters = list(network.parameters())
    if training.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=training.learning_rate, momentum=training.momentum)
    if training.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=training.learning_rate)
    return torch.optim.Adam(parameters, lr=training.learning_rate)


def _step(
    network: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, labels: Tensor
) -> Tensor:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(network(inputs), labels)
    loss.backward()
    optimizer.step()
    return loss.detach()
