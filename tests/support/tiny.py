"""A data set and an experiment that take no time."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from linprobe.data import ImageDataset
from linprobe.experiments.networks import DeepMLP
from linprobe.probes.minibatch import SGDProtocol
from linprobe.records.config import ExperimentRecord


def tiny_dataset(num_train=120, num_test=50):
    """Images of the right shape: blurred class patterns with noise."""
    generator = torch.Generator().manual_seed(5)
    patterns = torch.rand(10, 28, 28, generator=generator)

    def split(count):
        labels = torch.arange(count) % 10
        noise = torch.rand(count, 28, 28, generator=generator)
        images = 255 * (0.3 * patterns[labels] + 0.7 * noise)
        return images.to(torch.uint8), labels

    return ImageDataset("tiny", *split(num_train), *split(num_test), {"file": "00ff"}, "made up")


class TinyTrainer:
    """Trains nothing, and says so in `trained`."""

    def __init__(self, trained):
        self.trained = trained

    def advance(self, num_minibatches, on_batch):
        torch.ones(100, 100).sum()
        self.trained.append(num_minibatches)

    def state(self):
        return {}

    def restore(self, state):
        pass


@dataclass(frozen=True)
class TinyExperiment:
    """Probes of a network of few layers, before and after training that does nothing.

    Attributes:
        depth: hidden layers, even.
        steps: of the checkpoints; the first one is called untrained, the second one later.
        drawn: runs and folders that figures were asked for.
        trained: minibatches that each call of the trainer was asked for.
    """

    name: ClassVar[str] = "test"
    claim: ClassVar[str] = "None."

    depth: int = 2
    steps: tuple[int, ...] = (0, 40)
    drawn: list = field(default_factory=list)
    trained: list = field(default_factory=list)

    def network(self, generator, *, quick):
        return DeepMLP(self.depth, generator)

    def checkpoints(self, num_train, *, quick):
        return tuple(zip(("untrained", "later"), self.steps, strict=False))

    def trainer(self, network, data, generator, *, quick):
        return TinyTrainer(self.trained)

    def batch_seconds(self, *, quick):
        return 0.5

    def sgd_protocol(self, epochs=None):
        return SGDProtocol("adam", 1e-2, max_epochs=epochs or 8)

    def record(self, *, quick):
        return ExperimentRecord(depth=self.depth)

    def draw(self, run, folder):
        self.drawn.append((run, folder))
