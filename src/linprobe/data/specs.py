"""Data by name: ``mnist``, ``npz:FILE``, ``imagefolder:DIR``, ``module:name``."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from linprobe.data import load
from linprobe.data.images import ImageBatches, Preparation, find_images
from linprobe.data.npy import read_npz
from linprobe.data.registry import REGISTRY
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.files import file_sha256
from linprobe.runtime.imports import load_object
from linprobe.runtime.text import cause

_LABELS, _GROUPS, _WEIGHT, _INPUT = "y", "groups", "sample_weight", "x"
_NPZ = (
    "expected arrays x_train, y_train, x_test and y_test (or the network's own keyword arguments "
    "instead of x, such as input_ids_train)"
)


@dataclass(frozen=True)
class ProbeData:
    """Training and test split, as `linprobe.probe` takes them.

    Attributes:
        name: as the user gave it.
        train: the training split.
        test: the test split.
        groups: as `linprobe.probe` takes them.
        sample_weight: as `linprobe.probe` takes it.
        sha256: hex digest of each file, where the data is in few files.
    """

    name: str
    train: object
    test: object
    groups: object = None
    sample_weight: object = None
    sha256: dict[str, str] = field(default_factory=dict)


def read_data(
    spec: str,
    prepare: Preparation | None = None,
    *,
    batch_size: int = 256,
    data_dir: str | os.PathLike[str] | None = None,
) -> ProbeData:
    """Find the data that `spec` names.

    Args:
        spec: ``mnist`` or ``fashion-mnist``; ``npz:FILE`` with arrays ``x_train``, ``y_train``,
            ``x_test``, ``y_test`` (uint8 arrays of three or four dimensions are images), other
            names than x being keyword arguments of the network, and ``groups_train`` and
            ``sample_weight_train`` as `linprobe.probe` takes them; ``imagefolder:DIR`` with
            ``train/CLASS/IMAGE`` and ``test/CLASS/IMAGE``; or ``package.module:name`` of a pair
            (train, test) as `linprobe.probe` takes them, or of a function that gives one.
        prepare: preprocessing of images; default: divide by 255.
        batch_size: images at a time.
        data_dir: where the files of a published data set are.

    Raises:
        LinprobeError: No such data, or data of another form.
    """
    kind, _, rest = spec.partition(":")
    options = prepare or Preparation()
    if spec in REGISTRY:
        return _published(spec, options, batch_size, data_dir)
    if kind == "npz" and rest:
        return _npz(spec, Path(rest), prepare, batch_size)
    if kind == "imagefolder" and rest:
        return _image_folder(spec, Path(rest), options, batch_size)
    if not rest:
        raise LinprobeError(
            f"data is {spec!r}; expected {', '.join(REGISTRY)}, npz:FILE, imagefolder:DIR or "
            "package.module:name"
        )
    if prepare is not None:
        raise LinprobeError(
            f"data {spec!r} comes as it is; `channels`, `image_size` and `normalize` are for "
            f"images: {', '.join(REGISTRY)}, npz:FILE and imagefolder:DIR"
        )
    return _made(spec)


def _published(
    name: str, prepare: Preparation, batch_size: int, data_dir: str | os.PathLike[str] | None
) -> ProbeData:
    data = load(name, data_dir)
    splits = ((data.train_images, data.train_labels), (data.test_images, data.test_labels))
    train, test = (ImageBatches(x[:, None], y, prepare, batch_size) for x, y in splits)
    return ProbeData(name, train, test, sha256=data.sha256)


def _image_folder(spec: str, folder: Path, prepare: Preparation, batch_size: int) -> ProbeData:
    classes, found = find_images(folder)
    splits = (found["train"], found["test"])
    train, test = (ImageBatches(*own, prepare, batch_size, classes) for own in splits)
    return ProbeData(spec, train, test)


def _made(spec: str) -> ProbeData:
    made: Any = load_object(spec, "data")
    if callable(made):
        try:
            made = made()
        except Exception as error:
            raise LinprobeError(
                f"data {spec!r} failed: {cause(error)}; expected it to give (train, test) when "
                "called without arguments"
            ) from error
    if isinstance(made, Mapping) and set(made) == {"train", "test"}:
        made = (made["train"], made["test"])
    if not isinstance(made, tuple | list) or len(made) != 2:
        raise LinprobeError(
            f"data {spec!r} gave a {type(made).__name__}; expected a pair (train, test), each "
            "(x, y) arrays, a Dataset, a DataLoader or a list of batches"
        )
    return ProbeData(spec, made[0], made[1])


def _npz(spec: str, path: Path, prepare: Preparation | None, batch_size: int) -> ProbeData:
    arrays = read_npz(path, _NPZ)
    splits: dict[str, dict[str, np.ndarray]] = {"train": {}, "test": {}}
    for name, array in arrays.items():
        stem, _, split = name.rpartition("_")
        if stem and split in splits:
            splits[split][stem] = array
    groups = [splits[split].pop(_GROUPS, None) for split in splits]
    weight = splits["train"].pop(_WEIGHT, None)
    if _WEIGHT in splits["test"]:
        raise LinprobeError(
            f"{path} has {_WEIGHT}_test; expected weights of training samples only: test samples "
            "count once each"
        )
    for split, own in splits.items():
        lacking = [f"{_LABELS}_{split}"] * (_LABELS not in own)
        if set(own) <= {_LABELS}:
            lacking.append(f"{_INPUT}_{split}")
        if lacking:
            held = ", ".join(arrays) or "no arrays"
            raise LinprobeError(f"{path} has {held} and lacks {lacking[0]}; {_NPZ}")
    train, test = (_npz_split(own, prepare, batch_size) for own in splits.values())
    given = None if groups[0] is None else (groups[0] if groups[1] is None else tuple(groups))
    sha256 = {path.name: file_sha256(path)}
    return ProbeData(spec, train, test, groups=given, sample_weight=weight, sha256=sha256)


def _npz_split(
    arrays: dict[str, np.ndarray], prepare: Preparation | None, batch_size: int
) -> object:
    labels = arrays.pop(_LABELS)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    x = arrays.get(_INPUT)
    if len(arrays) > 1 or x is None:
        return {**arrays, "labels": labels}
    if x.dtype == np.uint8 and x.ndim in (3, 4) and len(x) == len(labels):
        images = torch.from_numpy(x[:, None] if x.ndim == 3 else x)  # bytes have no order
        if images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
            images = images.movedim(3, 1)
        return ImageBatches(images, labels, prepare or Preparation(), batch_size)
    if prepare is not None:
        raise LinprobeError(
            f"x is {x.dtype} {x.shape}; `channels`, `image_size` and `normalize` are for images: "
            "expected uint8 (n, height, width) or (n, height, width, channels)"
        )
    return x, labels
