"""Options that name a network and what to run it on, and their objects."""

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linprobe.cli.options import count, seed
from linprobe.runtime.errors import LinprobeError

if TYPE_CHECKING:
    from torch import nn

    from linprobe.data.specs import ProbeData

_IMAGE_OPTIONS = ("channels", "image_size", "normalize")


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """The network, its weights, and where it runs."""
    add = parser.add_argument
    add(
        "factory",
        metavar="FACTORY",
        help="what gives the network: package.module:name or path/to/file.py:name of a function "
        "or class (the current folder is searched too)",
    )
    add(
        "--kwargs",
        type=_keywords,
        default={},
        metavar="JSON",
        help="keyword arguments of the factory, such as '{\"num_classes\": 10}'",
    )
    add(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="weights: .safetensors, or a state dict that torch.save wrote (code in it is refused)",
    )
    add("--device", default="cpu", metavar="NAME", help="cpu, cuda, ... (default: %(default)s)")
    add("--seed", type=seed, metavar="N", default=0, help="of everything random (default: 0)")
    add("--threads", type=count, metavar="N", help="CPU threads (default: PyTorch's choice)")


def add_data_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """The data, and how images are prepared."""
    add = parser.add_argument
    add(
        "--data",
        required=required,
        metavar="DATA",
        help="mnist, fashion-mnist, npz:FILE (x_train, y_train, x_test, y_test), imagefolder:DIR "
        "(train/CLASS/IMAGE, test/CLASS/IMAGE), or package.module:name of a pair (train, test)",
    )
    add("--data-dir", metavar="DIR", help="folder of mnist's files (default: found or downloaded)")
    add(
        "--channels",
        type=int,
        choices=(1, 3),
        help="of images (default: as they are; imagefolder: 3)",
    )
    add(
        "--image-size",
        type=_size,
        metavar="N|HxW",
        help="resize images (default: as they are)",
    )
    add(
        "--normalize",
        type=_normalization,
        metavar="MEAN/STD",
        help="of pixels from 0 to 1, one number or one a channel: 0.485,0.456,0.406/0.229,0.224,"
        "0.225 (default: 0/1)",
    )


def open_network(options: argparse.Namespace) -> "tuple[nn.Module, str | None]":
    """Build the network on its device and load its weights.

    Returns:
        The network, and the SHA-256 of its checkpoint.
    """
    from linprobe.activations.load import build_network, load_weights

    network = build_network(options.factory, options.kwargs, options.seed)
    digest = None if options.checkpoint is None else load_weights(network, options.checkpoint)
    try:
        return network.to(options.device), digest
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise LinprobeError(
            f"device is {options.device!r}, which can't be used here ({first}); expected 'cpu' or "
            "a GPU that this PyTorch sees, such as 'cuda'"
        ) from error


def open_data(options: argparse.Namespace, batch_size: int) -> "ProbeData":
    """Find the data."""
    from linprobe.data.images import Preparation
    from linprobe.data.specs import read_data

    prepare = None
    if any(getattr(options, name) is not None for name in _IMAGE_OPTIONS):
        mean, std = options.normalize or ((0.0,), (1.0,))
        prepare = Preparation(options.channels, options.image_size, mean, std)
    return read_data(options.data, prepare, batch_size=batch_size, data_dir=options.data_dir)


def _keywords(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(
            f"{text!r} given; expected a JSON object such as '{{\"num_classes\": 10}}'"
        )
    return found


def _size(text: str) -> tuple[int, int]:
    height, x, width = text.partition("x")
    numbers = [height, width if x else height]
    if not all(number.isdecimal() and int(number) for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} given; expected pixels, such as 224 or 32x48")
    return int(numbers[0]), int(numbers[1])


def _normalization(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        mean, std = (tuple(map(float, part.split(","))) for part in text.split("/"))
    except ValueError:
        mean, std = (), ()
    if not std or not all(map(math.isfinite, mean)) or not all(0 < s < math.inf for s in std):
        raise argparse.ArgumentTypeError(
            f"{text!r} given; expected MEAN/STD, such as 0.1307/0.3081"
        )
    return mean, std
