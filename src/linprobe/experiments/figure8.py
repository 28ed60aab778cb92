"""Figure 8: probes of a pathologically deep network with one skip connection.

Modules that need torch are imported when they are used: the command line reads options from here.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from linprobe.experiments.wording import compared
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.numbers import real_number, whole_number

if TYPE_CHECKING:
    import torch
    from torch import nn

    from linprobe.data import ImageDataset
    from linprobe.experiments.experiment import Trainer
    from linprobe.experiments.mlp_training import MLPTraining
    from linprobe.probes.minibatch import SGDProtocol
    from linprobe.records.config import ExperimentRecord
    from linprobe.records.schema import RunRecord

Skip = Literal["input", "layer1", "layer1_added"]
SKIPS: tuple[str, ...] = get_args(Skip)

DEPTH, QUICK_DEPTH = 128, 10
STEPS, QUICK_STEPS = (0, 500, 2000), (0, 20, 60)
PROBE_EPOCHS = 200

_SAME = 0.05  # of the error: less of a fall is no learning
_SECONDS_PER_LAYER = 7e-4  # of a minibatch of 512 on two cores, roughly


@dataclass(frozen=True)
class Figure8:
    """Probes of a deep network with one skip connection, after 0, 500 and 2000 minibatches.

    Attributes:
        depth: hidden layers, even; None: 128, or 10 for a quick run.
        optimizer: of the network, "sgd", "rmsprop" or "adam". The course took "sgd" with a learning
            rate of 0.01, under which the deep network stays at the majority class.
        learning_rate: of the network's training.
        batch_size: samples a minibatch of the network's training.
        momentum: of optimizer sgd; None: .9.
        slope: of the network's leaky ReLU at negative numbers.
        skip: what enters the middle layer too: "input" or "layer1" (the first hidden layer's
            output), concatenated, or "layer1_added", summed.
    """

    name: ClassVar[str] = "fig8"
    claim: ClassVar[str] = (
        "Alain & Bengio 2016, section 4.1 and Figure 8: in a network of 128 dense layers whose "
        "input is also given to the layer in the middle, probes show that after 500 and 2000 "
        "minibatches the upper half has learned while the lower half is left unused: information "
        "that is there at the input is not linearly available in the lower layers, and training "
        "does not bring it back."
    )

    depth: int | None = None
    optimizer: Literal["sgd", "rmsprop", "adam"] = "adam"
    learning_rate: float = 1e-4
    batch_size: int = 512
    momentum: float | None = None
    slope: float = 0.1
    skip: Skip = "input"

    def __post_init__(self) -> None:
        if self.momentum is not None and self.optimizer != "sgd":
            raise LinprobeError(
                f"momentum is for optimizer 'sgd'; {self.optimizer!r} has none: leave it out"
            )
        if self.depth is not None:
            depth = whole_number("depth", self.depth, 0)
            if depth < 2 or depth % 2:
                raise LinprobeError(
                    f"depth is {depth}; expected an even number of layers, 2 or more"
                )
            object.__setattr__(self, "depth", depth)
        if self.skip not in SKIPS:
            known = ", ".join(SKIPS)
            raise LinprobeError(f"unknown skip {self.skip!r}; expected one of: {known}")
        slope = real_number("slope", self.slope, "a number from 0 to 1", lambda x: 0 <= x <= 1)
        object.__setattr__(self, "slope", slope)

    def network(self, generator: "torch.Generator", *, quick: bool) -> "nn.Module":
        """See `Experiment`."""
        from linprobe.experiments.networks import DeepMLP

        depth = self._depth(quick=quick)
        return DeepMLP(depth, generator, negative_slope=self.slope, skip=self.skip)

    def checkpoints(self, num_train: int, *, quick: bool) -> tuple[tuple[str, int], ...]:
        """See `Experiment`."""
        steps = QUICK_STEPS if quick else STEPS
        return tuple(("untrained" if step == 0 else f"step{step}", step) for step in steps)

    def trainer(
        self,
        network: "nn.Module",
        data: "ImageDataset",
        generator: "torch.Generator",
        *,
        quick: bool,
    ) -> "Trainer":
        """See `Experiment`."""
        from linprobe.experiments.mlp_training import MLPTrainer
        from linprobe.experiments.networks import DeepMLP

        assert isinstance(network, DeepMLP)
        images, labels = data.train_images, data.train_labels
        return MLPTrainer(network, images, labels, self.training(), generator)

    def training(self) -> "MLPTraining":
        """Settings of the network's training."""
        from linprobe.experiments.mlp_training import MLPTraining

        momentum = 0.9 if self.momentum is None else self.momentum
        return MLPTraining(self.optimizer, self.learning_rate, momentum, self.batch_size)

    def batch_seconds(self, *, quick: bool) -> float:
        """See `Experiment`."""
        return _SECONDS_PER_LAYER * self._depth(quick=quick)

    def sgd_protocol(self, epochs: int | None = None) -> "SGDProtocol":
        """Train probes by Adam, each with an early stop of its own.

        A probe stops after two epochs without a lower held-out cross-entropy; the weights of its
        best epoch are kept.
        """
        from linprobe.probes.minibatch import SGDProtocol

        epochs = PROBE_EPOCHS if epochs is None else epochs
        return SGDProtocol("adam", learning_rate=1e-3, max_epochs=epochs, patience=2)

    def record(self, *, quick: bool) -> "ExperimentRecord":
        """See `Experiment`."""
        from linprobe.records.config import ExperimentRecord, TrainingRecord

        depth = self._depth(quick=quick)
        return ExperimentRecord(
            chart="bars",
            depth=depth,
            skip_layer=f"layer{depth // 2 + 1}",
            skip_from=self.skip,
            negative_slope=self.slope,
            training=TrainingRecord(**asdict(self.training())),
        )

    @staticmethod
    def finding(run: "RunRecord") -> str:
        """See `Experiment`."""
        if len(run.checkpoints) < 2:
            return "the trained network has not been probed"
        untrained, trained = run.checkpoints[0], run.checkpoints[-1]
        middle = f"layer{(run.config.experiment.depth or DEPTH) // 2}"
        before, after = untrained.test_errors, trained.test_errors
        return compared(
            (
                f"after {trained.step:,} minibatches the upper half has learned",
                after["logits"] < before["logits"] / 2,
                f"test error at logits {after['logits']:.4f}, untrained {before['logits']:.4f}",
            ),
            (
                "the lower half is left unused",
                after[middle] >= before[middle] - _SAME,
                f"at {middle} {after[middle]:.4f}, untrained {before[middle]:.4f}",
            ),
        )

    def draw(self, run: "RunRecord", folder: Path) -> None:
        """Write figure8_test and figure8_train as PNG and SVG."""
        from linprobe.report.plots import figure8, save_figure

        save_figure(figure8(run, "test"), folder / "figure8_test")
        save_figure(figure8(run, "train"), folder / "figure8_train")

    def _depth(self, *, quick: bool) -> int:
        return self.depth if self.depth is not None else QUICK_DEPTH if quick else DEPTH
