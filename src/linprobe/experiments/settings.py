"""What all experiments take: settings, samples and sources of randomness."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from linprobe.data import ImageDataset, load
from linprobe.evaluation.controls import ControlConfig
from linprobe.evaluation.statistics import error_rate
from linprobe.pipeline.minibatch import SGDProtocol
from linprobe.probes.holdout import holdout_order
from linprobe.probes.protocol import ProbeConfig
from linprobe.records.schema import (
    ControlsRecord,
    DatasetRecord,
    ExperimentRecord,
    ExtractionRecord,
    MajorityErrorRate,
    MethodRecord,
    MinibatchRecord,
    RunConfig,
)
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.randomness import generator

QUICK_TRAIN, QUICK_TEST = 1_000, 1_000
QUICK_PROBE_EPOCHS = 5
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Settings:
    """Settings that do not depend on the experiment.

    Attributes:
        out: folder of the run.
        dataset: as `linprobe.data.load` takes it.
        data_dir: where its files are; None: look in the usual places.
        seed: of the network, its training, the held-out rows and the solver's samples.
        device: "cpu" or "cuda".
        quick: few samples and training steps: a check that all works, not a result.
        overwrite: replace a run that `out` holds.
        feature_bytes: features held in memory at a time; a layer that is larger is held alone.
        probe: the probing protocol's numbers; its seed is set from `seed`.
        controls: what each curve is compared with; its seed is set from `seed`.
        mdl: whether to compute the description length of the labels at each layer.
        float64: probe the activations of a forward pass in float64 instead of the network's own
            float32; what varies in a deep layer may lie below the rounding of its mean.
        sgd: train the probes so, by minibatches, instead of solving for certified optima; of
            `probe` only `tol` and `validation_fraction` are then used.
    """

    out: Path
    dataset: str = "mnist"
    data_dir: str | None = None
    seed: int = 0
    device: str = "cpu"
    quick: bool = False
    overwrite: bool = False
    feature_bytes: float = 8e9
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    controls: ControlConfig = field(default_factory=ControlConfig)
    mdl: bool = False
    float64: bool = False
    sgd: SGDProtocol | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise LinprobeError(f"seed is {self.seed}; expected a whole number from 0 on")
        if self.device not in DEVICES:
            known = " or ".join(DEVICES)
            raise LinprobeError(f"device is {self.device!r}; expected {known}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise LinprobeError(
                "device is 'cuda', but this PyTorch sees no CUDA device; use --device cpu, or "
                "install a CUDA build of PyTorch and check nvidia-smi"
            )
        if self.sgd is not None and (self.controls.names or self.mdl or self.float64):
            raise LinprobeError(
                "protocol sgd has no controls, no mdl and no float64, which are for certified "
                "probes; leave them out, or take protocol certified"
            )

    @property
    def protocol(self) -> str:
        """As a run's record names it."""
        return "certified" if self.sgd is None else "sgd"

    @property
    def probe_training(self) -> SGDProtocol | None:
        """`sgd`, in a quick run with few epochs."""
        if self.sgd is None or not self.quick:
            return self.sgd
        return replace(self.sgd, max_epochs=min(self.sgd.max_epochs, QUICK_PROBE_EPOCHS))

    def run_config(self, experiment: ExperimentRecord) -> RunConfig:
        """Record these settings, beside those of an experiment."""
        training = self.probe_training
        return RunConfig(
            device=self.device,
            method=MethodRecord(**asdict(self.probe))
            if training is None
            else MethodRecord(self.probe.tol, self.probe.validation_fraction),
            minibatch=None if training is None else MinibatchRecord(**asdict(training)),
            extraction=ExtractionRecord(memory_bytes=self.feature_bytes, float64=self.float64),
            controls=ControlsRecord(**asdict(replace(self.controls, seed=self.seed))),
            mdl=self.mdl,
            experiment=experiment,
        )


@dataclass(frozen=True)
class Samples:
    """Images and labels of a run, uint8 (n, 28, 28) and int64 (n,).

    Attributes:
        dataset: in published order, cut down for a quick run; networks are trained on it.
        train_images: the same training images, held-out ones last; probes are fitted on them.
        train_labels: theirs.
    """

    dataset: ImageDataset
    train_images: Tensor
    train_labels: Tensor

    def dataset_record(self) -> DatasetRecord:
        """Record the data set, with the error of its majority-class baseline."""
        data = self.dataset
        commonest = data.train_labels.mode().values
        splits = (data.train_labels, data.test_labels)
        return DatasetRecord(
            name=data.name,
            num_train=len(data.train_labels),
            num_test=len(data.test_labels),
            sha256=data.sha256,
            majority_error_rate=MajorityErrorRate(
                *(error_rate(commonest.expand(len(labels)), labels) for labels in splits)
            ),
        )


def load_samples(settings: Settings) -> Samples:
    """Load the data set, cut it down for a quick run, and order it for probing.

    Raises:
        LinprobeError: The data can't be had.
    """
    data = load(settings.dataset, settings.data_dir)
    if settings.quick:
        data = ImageDataset(
            data.name,
            data.train_images[:QUICK_TRAIN],
            data.train_labels[:QUICK_TRAIN],
            data.test_images[:QUICK_TEST],
            data.test_labels[:QUICK_TEST],
            data.sha256,
            data.source,
            data.num_classes,
        )
    order = holdout_order(
        data.train_labels, settings.probe.validation_fraction, generator(settings.seed, "holdout")
    )
    return Samples(data, data.train_images[order], data.train_labels[order])
