"""Networks by name."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.imports import load_object
from linprobe.runtime.randomness import seeded
from linprobe.runtime.text import cause


def build_network(factory: str, arguments: Mapping[str, Any], seed: int) -> nn.Module:
    """Make a network by calling what `factory` names.

    Args:
        factory: as `load_object` takes it; a network itself is taken as it is.
        arguments: keyword arguments of the call.
        seed: global random numbers start here, so that untrained weights can be had again.

    Raises:
        LinprobeError: It can't be called, fails, or gives something else than a network.
    """
    with seeded(seed):
        made = load_object(factory, "factory")
        if not isinstance(made, nn.Module):
            if not callable(made):
                raise LinprobeError(
                    f"factory {factory!r} is a {type(made).__name__}; expected a function or class "
                    "that gives a torch.nn.Module"
                )
            try:
                made = made(**arguments)
            except Exception as error:
                call = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
                raise LinprobeError(
                    f"factory {factory!r} failed: {cause(error)}; expected it to give a "
                    f"torch.nn.Module when called with ({call})"
                ) from error
    if not isinstance(made, nn.Module):
        raise LinprobeError(
            f"factory {factory!r} gave a {type(made).__name__}; expected a torch.nn.Module"
        )
    return made
