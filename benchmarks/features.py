"""Features of the paper's two networks on MNIST, and the problems that are cut from them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.drawn import DRAWN, FEW, few_rows, vit
from benchmarks.jobs import Job
from linprobe.activations.extract import extract_features
from linprobe.core.features import Standardisation, file_rows
from linprobe.data import ImageDataset, load
from linprobe.experiments.convnet_training import train_convnet
from linprobe.experiments.networks import ConvNet, DeepMLP
from linprobe.runtime.files import atomic_write
from linprobe.runtime.randomness import generator

_DEPTH = 128
_PROJECTION_SEED = 7
_READ_ROWS = 8192
_STRENGTH = 0.15  # of `few_rows`: separable by all features, and not by a few


@dataclass(frozen=True)
class Problem:
    """What every solver is given.

    Attributes:
        features: (n_samples, n_features) float32, standardised as `linprobe.Standardisation` does;
            (n_layers, n_samples, n_features) where layers are solved together.
        labels: (n_samples,) int64.
        num_classes: K.
    """

    features: Tensor
    labels: Tensor
    num_classes: int

    @property
    def num_samples(self) -> int:
        """Rows of the features."""
        return len(self.labels)


class FeatureFiles:
    """Features on disk, computed when they are first asked for.

    Args:
        folder: where ``LAYER.npy``, the labels and the trained network are kept.
        trained: ``.safetensors`` of a trained `ConvNet` of the paper's recipe; None: train one,
            which takes some minutes.
        dataset: as `linprobe.data.load` takes it.
        epochs: of the training.
    """

    def __init__(
        self,
        folder: Path,
        trained: Path | None = None,
        dataset: str = "mnist",
        epochs: int = 10,
    ) -> None:
        self.folder, self._trained, self._dataset = folder, trained, dataset
        self._epochs = epochs

    def prepare(self, layer: str, num_rows: int) -> None:
        """Make sure that at least `num_rows` rows of a layer (or several, "+") are on disk."""
        for name in layer.split("+") if layer not in DRAWN else ():
            self._prepare(name, num_rows)

    def _prepare(self, layer: str, num_rows: int) -> None:
        path = self.folder / f"{layer}.npy"
        if path.exists() and len(np.load(path, mmap_mode="r")) >= num_rows:
            return
        data = load(self._dataset)
        network = self._network(layer, data)
        network.eval()
        inputs = network.preprocess(data.train_images[:num_rows])
        tap = network.probe_points[layer]
        features = extract_features(network, inputs, [tap])[tap]
        for name, array in ((path, features), (self.folder / "labels.npy", data.train_labels)):
            with atomic_write(name) as temporary, temporary.open("wb") as file:
                np.save(file, array.numpy(), allow_pickle=False)

    def _network(self, layer: str, data: ImageDataset) -> ConvNet | DeepMLP:
        mlp = DeepMLP(_DEPTH, generator(0, "network"))
        if layer != "input" and layer != "logits" and layer in mlp.probe_points:
            return mlp
        network = ConvNet("paper", generator(0, "network"))
        if layer == "input":
            return network
        kept = self._trained or self.folder / "trained.safetensors"
        if kept.exists():
            network.load_state_dict(load_file(kept))
            return network
        train_convnet(
            network,
            data.train_images,
            data.train_labels,
            epochs=self._epochs,
            generator=generator(0, "training"),
        )
        with atomic_write(kept) as temporary:
            save_file({k: v.contiguous() for k, v in network.state_dict().items()}, temporary)
        return network


def load_problem(folder: Path, job: Job) -> Problem:
    """The problem of a job, from files that `FeatureFiles` wrote or drawn."""
    if job.layer in DRAWN:
        if job.layer == FEW:
            features, labels = few_rows(job.num_rows, job.num_features, _STRENGTH, 1)
        else:
            features, labels = vit(job.layer, job.num_rows, job.num_features, job.num_classes)
        Standardisation.fit_(features)
        return Problem(features.to(job.device), labels.to(job.device), job.num_classes)
    own = labels_file(folder / f"{job.layer}.npy")
    if own.exists():
        labels = torch.from_numpy(np.load(own, allow_pickle=False)[: job.num_rows])
        features = _first_rows(folder / f"{job.layer}.npy", job.num_rows)
        Standardisation.fit_(features)
        return Problem(features.to(job.device), labels.to(job.device), job.num_classes)
    digits = torch.from_numpy(np.load(folder / "labels.npy", allow_pickle=False))[: job.num_rows]
    layers = [_standardised(folder / f"{layer}.npy", job) for layer in job.layer.split("+")]
    labels = class_labels(digits, layers[0], job.num_classes).to(job.device)
    features = layers[0] if len(layers) == 1 else torch.stack(layers)
    return Problem(features.to(job.device), labels, job.num_classes)


def labels_file(features: Path) -> Path:
    """Name the file of labels of features whose rows are not those of the other layers."""
    return features.with_name(f"{features.stem}-labels.npy")


def _first_rows(path: Path, num_rows: int) -> Tensor:
    """Read rows to float32 without a second copy of them, which the memory might not hold."""
    stored = np.load(path, mmap_mode="r", allow_pickle=False)
    rows = file_rows(stored)
    assert rows is not None
    features = torch.empty(num_rows, stored.shape[1])
    for start in range(0, num_rows, _READ_ROWS):
        stop = min(start + _READ_ROWS, num_rows)
        features[start:stop] = rows[start:stop]
    return features


def _standardised(path: Path, job: Job) -> Tensor:
    stored = np.load(path, mmap_mode="r", allow_pickle=False)
    columns = np.linspace(0, stored.shape[1] - 1, job.num_features).round().astype(np.int64)
    rows = stored[: job.num_rows]
    chosen = np.array(rows if job.num_features == stored.shape[1] else rows[:, columns])
    features = torch.from_numpy(chosen).float()
    Standardisation.fit_(features)
    return features


def class_labels(digits: Tensor, features: Tensor, num_classes: int) -> Tensor:
    """Labels of K classes from the ten digits.

    Up to ten, neighbouring digits are merged. Beyond, every digit is cut into K / 10 classes of
    equal size along one random direction.

    Args:
        digits: (n_samples,) int64.
        features: (n_samples, n_features), standardised.
        num_classes: at most ten, or a multiple of ten.

    Raises:
        ValueError: Another number of classes.
    """
    if num_classes <= 10:
        return digits * num_classes // 10
    parts, left = divmod(num_classes, 10)
    if left:
        raise ValueError(f"num_classes is {num_classes}; expected at most 10 or a multiple of 10")
    source = torch.Generator().manual_seed(_PROJECTION_SEED)
    place = features @ torch.randn(features.shape[1], generator=source)
    labels = digits * parts
    for digit in digits.unique():
        members = (digits == digit).nonzero()[:, 0]
        ranks = place[members].argsort().argsort()
        labels[members] += ranks * parts // len(members)
    return labels
