"""Figure 8: probes of a pathologically deep network with one skip connection.

Claim of the paper (Alain & Bengio, Understanding intermediate layers using linear classifier
probes, 2016, section 4.1 and Figure 8): in a network of 128 dense layers whose input is also
given to the layer in the middle, probes show that after 500 and 2000 minibatches the upper half
has learned while the lower half is left unused: information that is there at the input is not
linearly available in the lower layers, and training does not bring it back.
"""

from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

from linprobe.experiments.networks import NEGATIVE_SLOPE, DeepMLP
from linprobe.experiments.session import Session
from linprobe.experiments.settings import Settings, load_samples
from linprobe.experiments.training import MLPTrainer, MLPTraining
from linprobe.pipeline.minibatch import SGDProtocol
from linprobe.records.folder import prepare_folder
from linprobe.records.schema import ExperimentRecord, RunRecord, TrainingRecord
from linprobe.report.plots import Split, figure8, save_figure
from linprobe.runtime.progress import OnEvent, ignore
from linprobe.runtime.randomness import generator

DEPTH, QUICK_DEPTH = 128, 10
STEPS, QUICK_STEPS = (0, 500, 2000), (0, 20, 60)
PROBE_EPOCHS = 200

_SPLITS: tuple[Split, ...] = ("test", "train")
_COST_PER_LAYER = 7e-4  # rough seconds of a minibatch of 512 on two cores


def sgd_protocol(epochs: int | None = None) -> SGDProtocol:
    """How probes of this figure are usually trained: by Adam, each with an early stop of its own.

    A probe stops after two epochs without a lower held-out cross-entropy; the weights of its best
    epoch are kept.

    Args:
        epochs: at most so many; None: 200.
    """
    epochs = PROBE_EPOCHS if epochs is None else epochs
    return SGDProtocol("adam", learning_rate=1e-3, max_epochs=epochs, patience=2)


@dataclass(frozen=True)
class Figure8Config:
    """What to run.

    Attributes:
        settings: what all experiments take.
        depth: hidden layers, even; None: 128, or 10 for a quick run.
        training: how the network is trained.
        negative_slope: of its leaky ReLU.
    """

    settings: Settings
    depth: int | None = None
    training: MLPTraining = field(default_factory=MLPTraining)
    negative_slope: float = NEGATIVE_SLOPE


def run(config: Figure8Config, on_event: OnEvent = ignore) -> RunRecord:
    """Train the network, probe it at each checkpoint, and write the run to ``settings.out``.

    Raises:
        LinprobeError: Depth or folder can't be used, or the data can't be had.
    """
    settings = config.settings
    depth = config.depth if config.depth is not None else QUICK_DEPTH if settings.quick else DEPTH
    network = DeepMLP(
        depth, generator(settings.seed, "network"), negative_slope=config.negative_slope
    ).to(settings.device)
    prepare_folder(settings.out, overwrite=settings.overwrite)
    samples = load_samples(settings)
    data = samples.dataset
    steps = QUICK_STEPS if settings.quick else STEPS
    session = Session(
        "fig8",
        settings,
        ExperimentRecord(
            chart="bars",
            depth=depth,
            skip_layer=f"layer{network.receiver}",
            negative_slope=config.negative_slope,
            training=TrainingRecord(**asdict(config.training)),
        ),
        samples,
        network,
        [("untrained" if step == 0 else f"step{step}", step) for step in steps],
        batch_cost=_COST_PER_LAYER * depth,
        draw=draw,
        on_event=on_event,
    )
    trainer = MLPTrainer(
        network,
        data.train_images,
        data.train_labels,
        config.training,
        generator(settings.seed, "training"),
    )
    session.probe()
    for before, after in pairwise(steps):
        with session.training(after - before) as on_batch:
            trainer.advance(after - before, on_batch)
        session.probe()
    return session.record


def draw(record: RunRecord, folder: Path) -> None:
    """Write figure8_test and figure8_train as PNG and SVG."""
    for split in _SPLITS:
        save_figure(figure8(record, split), folder / f"figure8_{split}")
