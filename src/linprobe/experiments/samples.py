"""Images and labels of an experiment."""

from dataclasses import dataclass, replace

from torch import Tensor

from linprobe.data import ImageDataset, load
from linprobe.evaluation.metrics import constant_metrics
from linprobe.experiments.settings import Settings
from linprobe.pipeline.task import majority_error_rate
from linprobe.probes.base import Targets
from linprobe.probes.holdout import holdout_order, num_held_out
from linprobe.records.schema import DatasetRecord
from linprobe.runtime.randomness import generator

QUICK_TRAIN, QUICK_TEST = 1_000, 1_000


@dataclass(frozen=True)
class Samples:
    """Images and labels of a run, uint8 (n, 28, 28) and int64 (n,).

    Attributes:
        dataset: in published order, cut down for a quick run; networks are trained on it.
        train_images: the same training images, held-out ones last; probes are fitted on them.
        targets: their labels.
    """

    dataset: ImageDataset
    train_images: Tensor
    targets: Targets

    def record(self) -> DatasetRecord:
        """The dataset entry of a run's record."""
        data = self.dataset
        return DatasetRecord(
            name=data.name,
            num_train=len(data.train_labels),
            num_test=len(data.test_labels),
            sha256=data.sha256,
            majority_error_rate=majority_error_rate(data.train_labels, data.test_labels),
            majority_metrics=constant_metrics(
                data.train_labels, data.test_labels, data.num_classes
            ),
        )


def load_samples(settings: Settings) -> Samples:
    """Load the data set, cut it down for a quick run, and order it for probing.

    Raises:
        LinprobeError: The data can't be had.
    """
    data = load(settings.dataset, settings.data_dir)
    if settings.quick:
        data = replace(
            data,
            train_images=data.train_images[:QUICK_TRAIN],
            train_labels=data.train_labels[:QUICK_TRAIN],
            test_images=data.test_images[:QUICK_TEST],
            test_labels=data.test_labels[:QUICK_TEST],
        )
    fraction = settings.method.validation_fraction
    order = holdout_order(data.train_labels, fraction, generator(settings.seed, "holdout"))
    held_out = num_held_out(len(order), fraction)
    targets = Targets(data.train_labels[order], data.num_classes, held_out)
    return Samples(data, data.train_images[order], targets)
