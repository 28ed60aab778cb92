"""The command ``linprobe layers``."""

import math
import sys
from typing import TYPE_CHECKING, Annotated

from linprobe.cli.flags import cpu_threads, flag, names
from linprobe.cli.network import DATA, Images, Network, open_data, open_network
from linprobe.runtime.errors import LinprobeError

if TYPE_CHECKING:
    from linprobe.data.batches import Batch

_EXAMPLES = 2


def _shape(text: str) -> tuple[int, ...]:
    sizes = text.split("x")
    if not all(size.isdecimal() for size in sizes) or not math.prod(map(int, sizes)):
        raise ValueError("expected sizes such as 3x224x224")
    return tuple(map(int, sizes))


def layers(
    factory: str,
    /,
    *,
    data: Annotated[str | None, DATA] = None,
    shape: Annotated[tuple[int, ...] | None, flag(_shape, "CxHxW")] = None,
    layers: Annotated[tuple[str, ...] | None, flag(names, "NAME,NAME,...")] = None,
    network: Network = Network(),
    images: Images = Images(),
) -> None:
    """List the layers of a network that can be probed.

    Runs the network on an example and lists its probe points: name, type, output, features of a
    sample, calls.

    Args:
        factory: function or class that gives the network: package.module:name or
            path/to/file.py:name (the current folder is searched too).
        data: data that --shape isn't needed for; see `linprobe probe --help`.
        shape: shape of one sample, to run the network on random numbers instead of --data.
        layers: list only those that `linprobe probe --layers` would take; None: all.

    Examples:
        linprobe layers torchvision.models:resnet18 --shape 3x224x224
        linprobe layers my_code/net.py:make_net --checkpoint net.safetensors --data npz:data.npz
    """
    if (data is None) == (shape is None):
        raise LinprobeError(
            "expected either --data, or --shape of one sample such as 3x224x224, to run the "
            "network on"
        )
    from linprobe.activations.layers import LayerTable, choose_layers, glob_notes, survey

    with cpu_threads(network.threads):
        module, loaded = open_network(factory, network)
        example = _random(shape, network.seed) if shape else _first(data or "", images)
        table = survey(module, example, None)
        if layers is not None:
            chosen = {name.removesuffix(":in") for name in choose_layers(module, table, layers)}
            for note in glob_notes(table, layers):
                print(note, file=sys.stderr)
            table = LayerTable(tuple(row for row in table if row.name in chosen))
        print(table)
        for note in loaded.notes if loaded else ():
            print(note)


def _first(data: str, images: Images) -> "Batch":
    from linprobe.data.inputs import Source

    for batch in Source(open_data(data, images, _EXAMPLES).train, "train", _EXAMPLES):
        return batch.head(_EXAMPLES)
    raise LinprobeError("the train data is empty; expected at least one sample")


def _random(shape: tuple[int, ...], seed: int) -> "Batch":
    import torch

    from linprobe.data.inputs import example_batch
    from linprobe.runtime.randomness import generator

    return example_batch(torch.rand(_EXAMPLES, *shape, generator=generator(seed, "example")))
