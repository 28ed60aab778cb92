"""The parts of an experiment: a network, its training, its checkpoints, a claim and a chart."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from linprobe.data import ImageDataset
    from linprobe.probes.minibatch import SGDProtocol
    from linprobe.records.config import ExperimentRecord
    from linprobe.records.schema import RunRecord

OnBatch = Callable[[int, int, float], None]
"""Called as ``on_batch(done, total, loss)`` now and then and at the end; loss in nats."""


class Trainer(Protocol):
    """The training of a network, from checkpoint to checkpoint."""

    def advance(self, num_minibatches: int, on_batch: OnBatch) -> None:
        """Train to the next checkpoint, which is so many minibatches away."""
        ...

    def state(self) -> "Mapping[str, Tensor]":
        """Give what further training depends on, beside the network's own tensors."""
        ...

    def restore(self, state: "Mapping[str, Tensor]") -> None:
        """Go on from a `state` that another trainer gave, of the same arguments, or this one."""
        ...


class Network(Protocol):
    """A network of an experiment: a `torch.nn.Module` that names its probe points."""

    @property
    def probe_points(self) -> Mapping[str, str]:
        """Names of the probe points, in depth order, to taps of `linprobe.activations.taps`."""
        ...

    def preprocess(self, images: "Tensor") -> "Tensor":
        """Turn uint8 images (n, 28, 28) into the network's input."""
        ...


class Experiment(Protocol):
    """One figure of the paper; the fields of an implementation are its options.

    Attributes:
        name: as the command line and records call it.
        claim: what the paper says that it shows.
    """

    name: ClassVar[str]
    claim: ClassVar[str]

    def network(self, generator: "torch.Generator", *, quick: bool) -> "torch.nn.Module":
        """Make the network; it is also a `Network`."""
        ...

    def checkpoints(self, num_train: int, *, quick: bool) -> tuple[tuple[str, int], ...]:
        """Name and training minibatches of each checkpoint, in order, the first one untrained."""
        ...

    def trainer(
        self,
        network: "torch.nn.Module",
        data: "ImageDataset",
        generator: "torch.Generator",
        *,
        quick: bool,
    ) -> Trainer:
        """Give the training of the network, which has not begun."""
        ...

    def batch_seconds(self, *, quick: bool) -> float:
        """Rough seconds of a training minibatch on two cores."""
        ...

    def sgd_protocol(self, epochs: int | None = None) -> "SGDProtocol":
        """Settings by which probes of this figure are usually trained.

        Args:
            epochs: at most so many; None: as many as usual.
        """
        ...

    def record(self, *, quick: bool) -> "ExperimentRecord":
        """Record the options."""
        ...

    @staticmethod
    def finding(run: "RunRecord") -> str:
        """Say in a line without its full stop what a run shows of `claim`, and what not."""
        ...

    def draw(self, run: "RunRecord", folder: Path) -> None:
        """Write the figures of a run so far."""
        ...
