"""A network as it was before training, as far as its modules know."""

import copy

import torch
from torch import nn

from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.randomness import seeded


def reinitialised(network: nn.Module, seed: int) -> nn.Module:
    """Copy `network` and draw all its weights anew, as its modules do when they are made.

    Every module with parameters or buffers of its own must have PyTorch's `reset_parameters`.

    Args:
        network: left as it was; all of it on one device.
        seed: of the weights.

    Raises:
        LinprobeError: A module with parameters that can't be reset.
    """
    place = next(network.parameters(), torch.empty(0)).device
    # Drawn on the CPU: the numbers do not depend on the device, nor move its generator.
    made = copy.deepcopy(network).cpu()
    with seeded(seed):
        for name, module in made.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            elif next(module.parameters(recurse=False), None) is not None:
                raise LinprobeError(
                    f"module {name or type(module).__name__!r} has parameters and no "
                    "reset_parameters, so that the untrained network is not known; make one as "
                    "for training and probe it by itself, without the control 'untrained'"
                )
    return made.to(place)
