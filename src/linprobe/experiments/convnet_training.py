"""Training of Figure 5's convolutional network, from explicit generators."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from linprobe.experiments.experiment import OnBatch
from linprobe.experiments.figure5 import Recipe
from linprobe.experiments.networks import ConvNet
from linprobe.experiments.training import check_images, is_report, minibatches, train_step


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
    check_images(images, labels)
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
            loss = train_step(network, optimizer, network.preprocess(images[index]), labels[index])
            schedule.step()
            if on_batch is not None and is_report(step + 1, total):
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


def _convnet_optimizer(network: ConvNet, how: ConvNetTraining) -> torch.optim.Optimizer:
    dense = [*network.fc1.parameters(), *network.logits.parameters()]
    convolutions = [*network.conv1.parameters(), *network.conv2.parameters()]
    # Weight decay p adds p * theta to the gradient: the gradient of p / 2 * ||theta||^2.
    groups: list[dict[str, Any]] = [
        {"params": convolutions},
        {"params": dense, "weight_decay": how.penalty},
    ]
    return torch.optim.SGD(groups, lr=how.learning_rate, momentum=0.9, fused=True)


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
