"""Networks by name, and weights of theirs from files, without running code from these."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.files import file_sha256
from linprobe.runtime.imports import load_object
from linprobe.runtime.randomness import seeded
from linprobe.runtime.text import cause

_NESTED = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")  # of nn.DataParallel and torch.compile
_NUM_SHOWN = 3


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


def load_weights(network: nn.Module, path: Path) -> str:
    """Load a checkpoint into `network`, every tensor of it and nothing else.

    Args:
        network: on any device.
        path: ``.safetensors``, or what `torch.save` wrote of a state dict (also inside a dict,
            under "state_dict", "model_state_dict" or "model"). Only tensors are read: a file
            that holds code is refused.

    Returns:
        SHA-256 of the file.

    Raises:
        LinprobeError: The file can't be read, or its tensors aren't those of the network.
    """
    state = _read(path)
    for prefix in _PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    _check_fit(network, state, path)
    network.load_state_dict(state, strict=False)  # shared tensors may stand under one name only
    return file_sha256(path)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise LinprobeError(
            f"checkpoint {path} can't be read ({error.strerror or error})"
        ) from error
    except SafetensorError as error:
        raise LinprobeError(f"checkpoint {path} is no safetensors file ({error})") from error
    except Exception as error:  # torch.load raises many types
        raise LinprobeError(
            f"checkpoint {path} is no file of tensors ({type(error).__name__}); expected what "
            "torch.save(network.state_dict(), FILE) writes; others could run code and aren't read"
        ) from error
    for key in _NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise LinprobeError(
            f"checkpoint {path} holds a {type(found).__name__} that is no state dict; expected "
            "names of parameters to tensors"
        )
    return dict(found)


def _check_fit(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    own = network.state_dict()
    given = {own[name].data_ptr() for name in own if name in state and own[name].numel()}
    problems = {
        "lacks": [n for n in own if n not in state and own[n].data_ptr() not in given],
        "has, unlike the network,": [name for name in state if name not in own],
        "has other shapes for": [
            f"{name} {tuple(value.shape)} instead of {tuple(own[name].shape)}"
            for name, value in state.items()
            if name in own and value.shape != own[name].shape
        ],
    }
    found = [f"{what} {_some(names)}" for what, names in problems.items() if names]
    if found:
        raise LinprobeError(
            f"checkpoint {path} doesn't fit the network: it {'; it '.join(found)}; give the "
            "factory that the checkpoint was made with"
        )


def _some(names: list[str]) -> str:
    more = len(names) - _NUM_SHOWN
    return ", ".join(names[:_NUM_SHOWN]) + (f" and {more} more" if more > 0 else "")
