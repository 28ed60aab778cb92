"""Figure 5: probes of a convolutional network on MNIST, before and after training.

Modules that need torch are imported when they are used: the command line reads options from here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from linprobe.experiments.wording import compared
from linprobe.records.evidence import RISES
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.numbers import whole_number

if TYPE_CHECKING:
    import torch
    from torch import nn

    from linprobe.data import ImageDataset
    from linprobe.experiments.experiment import Trainer
    from linprobe.probes.minibatch import SGDProtocol
    from linprobe.records.config import ExperimentRecord
    from linprobe.records.schema import RunRecord

Recipe = Literal["paper", "course"]
RECIPES: tuple[Recipe, ...] = get_args(Recipe)

QUICK_EPOCHS = 1
PROBE_EPOCHS = 500

_SECONDS_PER_SAMPLE = 7e-4  # of training on two cores, roughly


@dataclass(frozen=True)
class Figure5:
    """Probes of a convolutional network, untrained and after 10 epochs.

    Attributes:
        recipe: initialisation and training of the network.
        epochs: of training before the second checkpoint; a quick run takes one.
    """

    name: ClassVar[str] = "fig5"
    claim: ClassVar[str] = (
        "Alain & Bengio 2016, section 3.4 and Figure 5: even in the untrained network a probe "
        "after the first ReLU is much better than one on the input (test error about .02 against "
        ".08); after 10 epochs of training the error falls from layer to layer, with a minor kink "
        "at fc1_preact."
    )

    recipe: Recipe = "paper"
    epochs: int = 10

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            known = ", ".join(RECIPES)
            raise LinprobeError(f"recipe is {self.recipe!r}; expected one of: {known}")
        object.__setattr__(self, "epochs", whole_number("epochs", self.epochs, 1))

    def network(self, generator: "torch.Generator", *, quick: bool) -> "nn.Module":
        """See `Experiment`."""
        from linprobe.experiments.networks import ConvNet

        return ConvNet(self.recipe, generator)

    def checkpoints(self, num_train: int, *, quick: bool) -> tuple[tuple[str, int], ...]:
        """See `Experiment`."""
        from linprobe.experiments.convnet_training import CONVNET_TRAINING

        training = CONVNET_TRAINING[self.recipe]
        total = training.num_minibatches(num_train, self._epochs(quick=quick))
        return ("untrained", 0), ("trained", total)

    def trainer(
        self,
        network: "nn.Module",
        data: "ImageDataset",
        generator: "torch.Generator",
        *,
        quick: bool,
    ) -> "Trainer":
        """See `Experiment`."""
        from linprobe.experiments.convnet_training import ConvNetTrainer
        from linprobe.experiments.networks import ConvNet

        assert isinstance(network, ConvNet)
        images, labels = data.train_images, data.train_labels
        return ConvNetTrainer(network, images, labels, self._epochs(quick=quick), generator)

    def batch_seconds(self, *, quick: bool) -> float:
        """See `Experiment`."""
        from linprobe.experiments.convnet_training import CONVNET_TRAINING

        return _SECONDS_PER_SAMPLE * CONVNET_TRAINING[self.recipe].batch_size

    def sgd_protocol(self, epochs: int | None = None) -> "SGDProtocol":
        """Train probes by momentum, without an early stop.

        Learning rate and decay are those that the recipe trains the network with. The course's
        decay is applied every 50,000 minibatches, so not within 500 epochs of 98; the paper's
        every epoch, so that after 100 epochs the rate is .6 % of the first.
        """
        from linprobe.experiments.convnet_training import CONVNET_TRAINING
        from linprobe.probes.minibatch import SGDProtocol

        training = CONVNET_TRAINING[self.recipe]
        return SGDProtocol(
            optimizer="sgd",
            learning_rate=training.learning_rate,
            max_epochs=PROBE_EPOCHS if epochs is None else epochs,
            decay=training.decay,
            decay_batches=training.decay_batches,
        )

    def record(self, *, quick: bool) -> "ExperimentRecord":
        """See `Experiment`."""
        from linprobe.records.config import ExperimentRecord

        return ExperimentRecord(recipe=self.recipe, epochs=self._epochs(quick=quick))

    @staticmethod
    def finding(run: "RunRecord") -> str:
        """See `Experiment`."""
        if len(run.checkpoints) < 2:
            return "the trained network has not been probed"
        untrained, trained = run.checkpoints[0], run.checkpoints[-1]
        before, after = untrained.test_errors, trained.test_errors
        relu = before["conv1_postact"]
        rises = [step.to_layer for step in trained.steps if step.verdict == RISES]
        return compared(
            (
                "untrained, probes are much better after the first ReLU",
                relu < before["input"] / 2,
                f"test error {before['input']:.4f} on the input, {relu:.4f} there",
            ),
            (
                "trained, the error falls from layer to layer but for fc1_preact",
                after["logits"] < after["input"] and set(rises) <= {"fc1_preact"},
                f"{after['input']:.4f} on the input, {after['logits']:.4f} at the logits, "
                f"significant rises: {', '.join(rises) or 'none'}",
            ),
        )

    def draw(self, run: "RunRecord", folder: Path) -> None:
        """Write figure5a (first checkpoint) and figure5b (second) as PNG and SVG."""
        from linprobe.report.plots import figure5, save_figure

        for letter, checkpoint in zip("ab", run.checkpoints, strict=False):
            save_figure(figure5(run, checkpoint.name), folder / f"figure5{letter}")

    def _epochs(self, *, quick: bool) -> int:
        return QUICK_EPOCHS if quick else self.epochs
