"""Batches of images for networks: from arrays or files, prepared as they are read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from linprobe.runtime.errors import LinprobeError

IMAGE_TYPES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
TEST_FOLDERS = ("test", "val", "validation")


@dataclass(frozen=True)
class Preparation:
    """Preprocessing of images with values from 0 to 255 for a network.

    Attributes:
        channels: 1 or 3; None: as they are (files: 3).
        size: (height, width) to resize to, bilinear with antialiasing; None: as they are.
        mean: subtracted after division by 255, one number or one a channel.
        std: divided by, likewise.
    """

    channels: int | None = None
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __call__(self, images: Tensor) -> Tensor:
        """Prepare uint8 (n, channels, height, width); float32 of the network's shape.

        Raises:
            LinprobeError: The channels can't be converted, or the means or stds don't fit them.
        """
        x = images.float() / 255
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        if self.channels not in (None, x.shape[1]):
            if x.shape[1] != 1:
                raise LinprobeError(
                    f"the images have {x.shape[1]} channels, {self.channels} are asked for; "
                    "expected as many, or images of one channel"
                )
            x = x.expand(-1, self.channels, -1, -1)
        if self.size is not None and x.shape[2:] != self.size:
            x = torch.nn.functional.interpolate(x, self.size, mode="bilinear", antialias=True)
        for values in (mean, std):
            if len(values) not in (1, x.shape[1]):
                raise LinprobeError(
                    f"{len(values)} means or standard deviations for {x.shape[1]} channels; "
                    "expected one for all, or one for each"
                )
        return (x - mean) / std


class ImageBatches:
    """Batches (images, labels) in one fixed order, as `linprobe.probe` takes them.

    Args:
        images: uint8 (n, channels, height, width), or the images' files.
        labels: (n,) int64.
        prepare: the preprocessing.
        batch_size: images at a time.
        classes: names of the classes, where they have any.
    """

    def __init__(
        self,
        images: Tensor | Sequence[Path],
        labels: Tensor | np.ndarray,
        prepare: Preparation,
        batch_size: int,
        classes: Sequence[str] = (),
    ) -> None:
        self.classes = tuple(classes)
        self.images, self.labels = images, labels
        self.prepare, self.batch_size = prepare, batch_size

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | np.ndarray]]:
        for start in range(0, len(self.labels), self.batch_size):
            rows = slice(start, start + self.batch_size)
            images = self.images[rows]
            if not isinstance(images, Tensor):
                images = self._read(images)
            yield self.prepare(images), self.labels[rows]

    def _read(self, paths: Sequence[Path]) -> Tensor:
        images = [read_image(path, self.prepare) for path in paths]
        for path, image in zip(paths, images, strict=True):
            if image.shape != images[0].shape:
                raise LinprobeError(
                    f"{path} is {image.shape[2]} x {image.shape[1]} pixels, {paths[0]} is "
                    f"{images[0].shape[2]} x {images[0].shape[1]}; expected images of one size: "
                    "give `image_size`"
                )
        return torch.stack(images)


def read_image(path: Path, prepare: Preparation) -> Tensor:
    """Read an image as uint8 (channels, height, width), or raise `LinprobeError`."""
    try:
        with Image.open(path) as opened:
            image = opened.convert("L" if prepare.channels == 1 else "RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise LinprobeError(f"{path} can't be read as an image ({error})") from error
    if prepare.size is not None:
        image = image.resize(prepare.size[::-1], Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def find_images(folder: Path) -> tuple[list[str], dict[str, tuple[list[Path], Tensor]]]:
    """Find the images of ``folder/train/CLASS/FILE`` and ``folder/test/CLASS/FILE``.

    Args:
        folder: instead of "test", its test split may be called "val" or "validation".

    Returns:
        The classes, sorted, and for "train" and "test" the files, sorted, with labels (n,) int64.

    Raises:
        LinprobeError: No such folders, or no images in them.
    """
    if not folder.is_dir():
        raise LinprobeError(f"{folder} is no folder; expected one with train/CLASS/IMAGE files")
    tests = [name for name in TEST_FOLDERS if (folder / name).is_dir()]
    if not (folder / "train").is_dir() or not tests:
        raise LinprobeError(
            f"{folder} has no sub-folders train and test (or val); expected train/CLASS/IMAGE "
            "and test/CLASS/IMAGE files"
        )
    places = {"train": folder / "train", "test": folder / tests[0]}
    entries = [entry for place in places.values() for entry in place.iterdir()]
    classes = sorted({entry.name for entry in entries if entry.is_dir()})
    return classes, {split: _find(place, classes) for split, place in places.items()}


def _find(place: Path, classes: Sequence[str]) -> tuple[list[Path], Tensor]:
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        own = sorted(p for p in (place / name).rglob("*") if p.suffix.lower() in IMAGE_TYPES)
        paths += own
        labels += [label] * len(own)
    if not paths:
        raise LinprobeError(
            f"{place} holds no images; expected files CLASS/IMAGE of a type such as "
            ".png or .jpg in it"
        )
    return paths, torch.tensor(labels)
