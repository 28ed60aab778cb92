"""The command ``linprobe layers``."""

import argparse
import math
from typing import TYPE_CHECKING

from linprobe.cli.network import (
    add_data_options,
    add_network_options,
    open_data,
    open_network,
)
from linprobe.cli.options import cpu_threads
from linprobe.runtime.errors import LinprobeError

if TYPE_CHECKING:
    from linprobe.cli.options import Commands
    from linprobe.data.batches import Batch

_EXAMPLES = 2


def add_parser(commands: "Commands") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "layers",
        help="list the layers of a network that can be probed",
        description="Run a network on an example and list its probe points: name, type, output, "
        "features of a sample, calls.",
        allow_abbrev=False,
    )
    add_network_options(parser)
    parser.add_argument(
        "--shape",
        type=_shape,
        metavar="CxHxW",
        help="of one sample, to run the network on random numbers instead of --data",
    )
    add_data_options(parser, required=False)
    parser.set_defaults(command=_layers)


def _layers(options: argparse.Namespace) -> None:
    if (options.data is None) == (options.shape is None):
        raise LinprobeError(
            "expected either --data, or --shape of one sample such as 3x224x224, to run the "
            "network on"
        )
    from linprobe.activations.layers import survey

    with cpu_threads(options.threads):
        network, _ = open_network(options)
        print(survey(network, _example(options), None))


def _example(options: argparse.Namespace) -> "Batch":
    from linprobe.data.inputs import Source, example_batch

    if options.shape is None:
        source = Source(open_data(options, _EXAMPLES).train, "train", _EXAMPLES)
        for batch in source:
            return batch.head(_EXAMPLES)
        raise LinprobeError("the train data is empty; expected at least one sample")
    import torch

    from linprobe.runtime.randomness import generator

    draws = generator(options.seed, "example")
    return example_batch(torch.rand(_EXAMPLES, *options.shape, generator=draws))


def _shape(text: str) -> tuple[int, ...]:
    sizes = text.split("x")
    if not all(size.isdecimal() for size in sizes) or not math.prod(map(int, sizes)):
        raise argparse.ArgumentTypeError(f"{text!r} given; expected sizes such as 3x224x224")
    return tuple(map(int, sizes))
