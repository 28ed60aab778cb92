"""Figure 5: probes of a convolutional network on MNIST, before and after training.

Claim of the paper (Alain & Bengio, Understanding intermediate layers using linear classifier
probes, 2016, section 3.4 and Figure 5): even in the untrained network a probe after the first
ReLU is much better than one on the input (test error about .02 against .08); after 10 epochs of
training the error falls from layer to layer, with a minor kink at fc1_preact.
"""

from dataclasses import dataclass
from pathlib import Path

from linprobe.experiments.networks import RECIPES, ConvNet, Recipe
from linprobe.experiments.session import Session
from linprobe.experiments.settings import Settings, load_samples
from linprobe.experiments.training import CONVNET_TRAINING, train_convnet
from linprobe.pipeline.minibatch import SGDProtocol
from linprobe.records.folder import prepare_folder
from linprobe.records.schema import ExperimentRecord, RunRecord
from linprobe.report.plots import figure5, save_figure
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.progress import OnEvent, ignore
from linprobe.runtime.randomness import generator

QUICK_EPOCHS = 1

PROBE_EPOCHS = 500

_COST_PER_SAMPLE = 7e-4  # rough seconds of training on two cores


def sgd_protocol(recipe: Recipe, epochs: int | None = None) -> SGDProtocol:
    """How probes of this figure are usually trained: by momentum, without an early stop.

    Learning rate and decay are those that the recipe trains the network with. The course's decay
    is applied every 50,000 minibatches, so not within 500 epochs of 98; the paper's every epoch,
    so that after 100 epochs the rate is .6 % of the first.

    Args:
        recipe: "paper" or "course".
        epochs: at most so many; None: 500.
    """
    how = CONVNET_TRAINING[recipe]
    return SGDProtocol(
        optimizer="sgd",
        learning_rate=how.learning_rate,
        max_epochs=PROBE_EPOCHS if epochs is None else epochs,
        decay=how.decay,
        decay_batches=how.decay_batches,
    )


@dataclass(frozen=True)
class Figure5Config:
    """What to run.

    Attributes:
        settings: what all experiments take.
        recipe: initialisation and training of the network, "paper" or "course".
        epochs: of training before the second checkpoint; a quick run takes one.
    """

    settings: Settings
    recipe: Recipe = "paper"
    epochs: int = 10

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            known = ", ".join(RECIPES)
            raise LinprobeError(f"recipe is {self.recipe!r}; expected one of: {known}")
        if self.epochs < 1:
            raise LinprobeError(f"epochs is {self.epochs}; expected at least 1")


def run(config: Figure5Config, on_event: OnEvent = ignore) -> RunRecord:
    """Train the network, probe it before and after, and write the run to ``settings.out``.

    Raises:
        LinprobeError: The folder can't be used, or the data can't be had.
    """
    settings = config.settings
    prepare_folder(settings.out, overwrite=settings.overwrite)
    samples = load_samples(settings)
    data = samples.dataset
    epochs = QUICK_EPOCHS if settings.quick else config.epochs
    how = CONVNET_TRAINING[config.recipe]
    num_minibatches = how.num_minibatches(len(data.train_labels), epochs)
    network = ConvNet(config.recipe, generator(settings.seed, "network")).to(settings.device)
    session = Session(
        "fig5",
        settings,
        ExperimentRecord(recipe=config.recipe, epochs=epochs),
        samples,
        network,
        (("untrained", 0), ("trained", num_minibatches)),
        batch_cost=_COST_PER_SAMPLE * how.batch_size,
        draw=draw,
        on_event=on_event,
    )
    session.probe()
    with session.training(num_minibatches) as on_batch:
        train_convnet(
            network,
            data.train_images,
            data.train_labels,
            epochs=epochs,
            generator=generator(settings.seed, "training"),
            on_batch=on_batch,
        )
    session.probe()
    return session.record


def draw(record: RunRecord, folder: Path) -> None:
    """Write figure5a (first checkpoint) and figure5b (second) as PNG and SVG."""
    for letter, checkpoint in zip("ab", record.checkpoints, strict=False):
        save_figure(figure5(record, checkpoint.name), folder / f"figure5{letter}")
