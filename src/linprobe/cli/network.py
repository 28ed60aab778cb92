"""Options that name a network and what to run it on, and their objects."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from linprobe.cli.flags import COUNT, SEED, flag
from linprobe.runtime.errors import LinprobeError

if TYPE_CHECKING:
    from torch import nn

    from linprobe.activations.checkpoints import Loaded
    from linprobe.data.specs import ProbeData

DATA = flag(str, "DATA")


def _keywords(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError("expected a JSON object such as '{\"num_classes\": 10}'")
    return found


def _size(text: str) -> tuple[int, int]:
    height, x, width = text.partition("x")
    numbers = [height, width if x else height]
    if not all(number.isdecimal() and int(number) for number in numbers):
        raise ValueError("expected pixels, such as 224 or 32x48")
    return int(numbers[0]), int(numbers[1])


def _normalization(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        mean, std = (tuple(map(float, part.split(","))) for part in text.split("/"))
    except ValueError:
        mean, std = (), ()
    if not std or not all(map(math.isfinite, mean)) or not all(0 < s < math.inf for s in std):
        raise ValueError("expected MEAN/STD, such as 0.1307/0.3081")
    return mean, std


@Parameter(name="*", group="network")
@dataclass(frozen=True)
class Network:
    """The weights of a network, and where it runs.

    Attributes:
        kwargs: keyword arguments of FACTORY, such as '{"num_classes": 10}'.
        checkpoint: weights: .safetensors, or what torch.save wrote: a state dict, alone or beside
            other things, or a whole network (only tensors are read, no code is run).
        checkpoint_key: of the dict to take of it, such as model or teacher; None: the one that
            fits.
        checkpoint_prefix: of the network's names there, such as backbone.; None: the one that
            fits.
        partial: take what fits of the checkpoint; the rest of the network stays random.
        device: cpu, cuda, or another device of PyTorch.
        seed: of everything random.
        threads: CPU threads; None: PyTorch's choice.
    """

    kwargs: Annotated[Mapping[str, Any], flag(_keywords, "JSON")] = field(default_factory=dict)
    checkpoint: Annotated[Path | None, flag(Path, "FILE")] = None
    checkpoint_key: Annotated[str | None, flag(str, "KEY")] = None
    checkpoint_prefix: Annotated[str | None, flag(str, "PREFIX")] = None
    partial: bool = False
    device: Annotated[str, flag(str, "NAME")] = "cpu"
    seed: Annotated[int, SEED] = 0
    threads: Annotated[int | None, COUNT] = None


@Parameter(name="*", group="images")
@dataclass(frozen=True)
class Images:
    """Where images are and their preparation.

    Attributes:
        data_dir: folder of mnist's files; None: found or downloaded.
        channels: of images; None: as they are, 3 for imagefolder.
        image_size: resize images; None: as they are.
        normalize: pixels from 0 to 1, by one number or one a channel:
            0.485,0.456,0.406/0.229,0.224,0.225; None: 0/1.
    """

    data_dir: Annotated[str | None, flag(str, "DIR")] = None
    channels: Literal[1, 3] | None = None
    image_size: Annotated[tuple[int, int] | None, flag(_size, "N|HxW")] = None
    normalize: Annotated[
        tuple[tuple[float, ...], tuple[float, ...]] | None, flag(_normalization, "MEAN/STD")
    ] = None


def open_network(factory: str, options: Network) -> "tuple[nn.Module, Loaded | None]":
    """Build the network on its device and load its weights.

    Returns:
        The network, and what became of its checkpoint.

    Raises:
        LinprobeError: Factory, checkpoint or device can't be used.
    """
    from linprobe.activations.checkpoints import load_weights
    from linprobe.activations.load import build_network

    network = build_network(factory, dict(options.kwargs), options.seed)
    loaded = None
    if options.checkpoint is not None:
        loaded = load_weights(
            network,
            options.checkpoint,
            key=options.checkpoint_key,
            prefix=options.checkpoint_prefix,
            partial=options.partial,
        )
    try:
        return network.to(options.device), loaded
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise LinprobeError(
            f"device is {options.device!r}, which can't be used here ({first}); expected 'cpu' or "
            "a GPU that this PyTorch sees, such as 'cuda'"
        ) from error


def open_data(data: str, images: Images, batch_size: int) -> "ProbeData":
    """Find the data.

    Raises:
        LinprobeError: There is no such data, or it can't be prepared so.
    """
    from linprobe.data.images import Preparation
    from linprobe.data.specs import read_data

    prepare = None
    if any((images.channels, images.image_size, images.normalize)):
        mean, std = images.normalize or ((0.0,), (1.0,))
        prepare = Preparation(images.channels, images.image_size, mean, std)
    return read_data(data, prepare, batch_size=batch_size, data_dir=images.data_dir)
