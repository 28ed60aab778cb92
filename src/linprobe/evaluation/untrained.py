"""The network of the control "untrained": as it was before training, by its own initialisation."""

import copy
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from linprobe.activations.inference import lacks_values
from linprobe.activations.taps import unwrapped
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.randomness import seeded
from linprobe.runtime.text import cause, counted

Untrained = nn.Module | Callable[[int], nn.Module]

_CURE = (
    "give `untrained`, a network as before training or a function f(seed) that makes one, or leave "
    "the control 'untrained' out"
)
# What libraries call a method that draws a module's weights; one name of each row is called.
_DRAWS = (
    ("reset_parameters", "_reset_parameters"),
    ("init_weights", "_init_weights", "initialize_weights", "_initialize_weights"),
)
_PACKED = (torch.int32, torch.int8, torch.uint8, torch.float8_e4m3fn, torch.float8_e5m2)
_DEFAULTS = "the defaults of its layers"
_TOKEN_STD = 0.02
_TOKENS = {
    *("cls_token", "class_token", "dist_token", "mask_token", "reg_token", "register_tokens"),
    *("pos_embed", "pos_embedding", "position_embedding", "position_embeddings"),
}
_ONES, _ZEROS = {"weight", "gamma", "scale"}, {"bias", "beta"}  # of modules called ...Norm
_NUM_NAMED = 3


def untrained_network(
    network: nn.Module, seed: int, given: Untrained | None = None
) -> tuple[nn.Module, str]:
    """Make the network as it was before training, on the CPU unless it is given.

    Without `given` a copy of `network` is drawn anew, as its own code draws it:

    1. A class that takes its ``config`` alone, as those of Hugging Face do, is made again from it;
       a network of timm is made again by its name. Parameters that were added or changed in
       shape, such as a new head, are drawn as follows.
    2. Every module draws its weights, inner ones first, by ``reset_parameters`` and then by
       ``init_weights`` (or the like, such as ``_init_weights(module)``), where it has them.
    3. Of what is left, weights of modules called ...Norm become 1 and their biases 0; class tokens
       and position embeddings are drawn from a normal distribution of deviation .02.

    Computed buffers keep their values, tied weights stay tied.

    Args:
        network: left as it was.
        seed: of the weights.
        given: the untrained network, or a function of the seed that makes it.

    Returns:
        The network, and a sentence that says where its weights come from.

    Raises:
        LinprobeError: Weights whose initialisation is not known; or what is given is no network.
    """
    with seeded(seed), torch.device("cpu"):
        if given is not None:
            return _taken(network, seed, given)
        if lacks_values(network) or any(p.is_meta for p in network.parameters()):
            raise _impossible("its weights are not in memory")
        if next(network.parameters(), None) is None:
            raise _impossible("it has no parameters of PyTorch's")
        for path, module in network.named_modules():
            if _is_quantised(module):
                raise _impossible(f"the weights of layer {path!r} are quantised")
        try:
            made = copy.deepcopy(unwrapped(network)).cpu()
            ways, left = _redrawn(made)
        except Exception as error:
            raise _impossible(cause(error)) from error
    if left:
        named = ", ".join(left[:_NUM_NAMED]) + (" ..." if len(left) > _NUM_NAMED else "")
        raise _impossible(f"{counted(len(left), 'parameter')} without an initialiser: {named}")
    return made, _said(ways, _unchanged(made, unwrapped(network)))


def _said(ways: list[str], same: int) -> str:
    """Where the weights come from."""
    said = f"The control 'untrained' drew its weights by {', '.join(ways) or 'nothing'}"
    if ways == [_DEFAULTS]:
        said += "; give `untrained` if the network began otherwise"
    if same:
        said += (
            f"; {same} of its weight matrices came out as in the network: not trained there, or "
            "made with trained weights"
        )
    return f"{said}."


def _impossible(why: str) -> LinprobeError:
    return LinprobeError(f"the untrained network can't be made ({why}); {_CURE}")


def _is_quantised(module: nn.Module) -> bool:
    """Tell whether a layer holds its weights in another way than as parameters."""
    kind = type(module)
    if kind.__module__.startswith("torch.ao.nn") and ".quantized" in kind.__module__:
        return True
    own = module.buffers(recurse=False)
    packed = any(buffer.ndim > 1 and buffer.dtype in _PACKED for buffer in own)
    return packed and any(name in kind.__name__.lower() for name in ("linear", "conv", "embed"))


def _taken(network: nn.Module, seed: int, given: Untrained) -> tuple[nn.Module, str]:
    """Give what the user gives, checked."""
    made: object = given
    if not isinstance(given, nn.Module):
        try:
            made = given(seed)
        except LinprobeError:
            raise
        except Exception as error:
            raise LinprobeError(
                f"untrained failed: {cause(error)}; expected a network, or a function f(seed) "
                "that makes one"
            ) from error
    if not isinstance(made, nn.Module):
        raise LinprobeError(
            f"untrained gives a {type(made).__name__}; expected a torch.nn.Module, as it was "
            "before training"
        )
    if not {id(p) for p in made.parameters()}.isdisjoint(map(id, network.parameters())):
        raise LinprobeError(
            "untrained shares parameters with the network itself; expected one of its own weights"
        )
    return made, "The control 'untrained' is the network that was given for it."


@torch.no_grad()
def _redrawn(made: nn.Module) -> tuple[list[str], list[str]]:
    """Draw all weights of a network in place.

    Returns:
        The ways in which they were drawn, and the parameters that none of them reached.
    """
    made.eval()  # computed weights, such as those of a spectral norm, must not learn here
    for module in made.modules():
        vars(module).pop("_is_hf_initialized", None)  # transformers draws no such module again
    computed = {id(p) for m in made.modules() for p in _originals(m)}
    for parameter in made.parameters():
        # What an initialiser reaches is no longer NaN: so no trained weight is left by mistake.
        if id(parameter) not in computed and parameter.dtype.is_floating_point:
            parameter.fill_(torch.nan)
    ways = dict.fromkeys(_draw(made))
    for name, parameter in made.named_parameters():
        if "lora_B" in name:  # adapters begin by adding nothing
            parameter.zero_()
    left = []
    for path, module in made.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dtype.is_floating_point and not parameter.isnan().any():
                continue
            if _by_convention(module, name, parameter):
                ways["convention for norms, class tokens and positions"] = None
            else:
                left.append(f"{'.'.join(filter(None, (path, name)))!r} ({type(module).__name__})")
    return list(ways), left


def _draw(module: nn.Module) -> Iterator[str]:
    """Draw a module's weights, inner modules' first; name the ways."""
    donor, way = _remade(module)
    if donor is not None and _copied(donor, module):
        yield way
        return
    if parametrize.is_parametrized(module):
        yield from _draw_parametrized(module)
        return
    for child in module.children():
        yield from _draw(child)
    for names in _DRAWS:
        yield from _called(module, names)
    if donor is not None:
        _copied(donor, module)
        yield way


def _remade(module: nn.Module) -> tuple[nn.Module | None, str]:
    """A new module of the same architecture, where the module says how it is made."""
    kind, timm = type(module), sys.modules.get("timm")
    cfg = getattr(module, "pretrained_cfg", None)
    try:
        if timm is not None and isinstance(cfg, dict) and "architecture" in cfg:
            name, classes = cfg["architecture"], getattr(module, "num_classes", None)
            return timm.create_model(name, num_classes=classes), f"timm ({name})"
        if hasattr(module, "config"):
            return kind(copy.deepcopy(module.config)), f"{kind.__name__}(config)"
    except Exception:
        pass  # it is made otherwise
    return None, ""


def _copied(donor: nn.Module, module: nn.Module) -> bool:
    """Copy what has the same name and shape; return whether that is every parameter."""
    given = dict(donor.named_parameters(remove_duplicate=False))
    fits = {
        name: given[name]
        for name, parameter in module.named_parameters()
        if name in given and given[name].shape == parameter.shape
    }
    buffers = dict(donor.named_buffers(remove_duplicate=False))
    for name, parameter in module.named_parameters():
        if name in fits:
            parameter.copy_(fits[name])
    for name, buffer in module.named_buffers():
        if name in buffers and buffers[name].shape == buffer.shape:
            buffer.copy_(buffers[name])
    return len(fits) == sum(1 for _ in module.parameters())


def _called(module: nn.Module, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        draw = getattr(module, name, None)
        if not callable(draw):
            continue
        needed = [
            p
            for p in inspect.signature(draw).parameters.values()
            if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        if len(needed) > 1:
            continue
        if needed:
            module.apply(draw)
        else:
            draw()
        if name not in _DRAWS[0]:
            yield f"{type(module).__name__}.{name}"
        elif next(module.parameters(recurse=False), None) is not None:
            yield _DEFAULTS
        return


def _originals(module: nn.Module) -> Iterator[Tensor]:
    """Parameters from which a module computes its weights."""
    if parametrize.is_parametrized(module):
        kept: Any = module.parametrizations
        yield from kept.parameters()


def _draw_parametrized(module: nn.Module) -> Iterator[str]:
    """Draw the weights that a module computes, and take back what they are computed from."""
    kept: Any = module.parametrizations
    with parametrize.cached():
        drawn = {name: getattr(module, name).fill_(torch.nan) for name in kept}
        yield from _called(module, _DRAWS[0])
    for name, value in drawn.items():
        setattr(module, name, value)
        if not torch.allclose(getattr(module, name), value, rtol=1e-3, atol=1e-6):
            for original in kept[name].parameters():
                original.fill_(torch.nan)  # such as a spectral norm's: not known


def _by_convention(module: nn.Module, name: str, parameter: Tensor) -> bool:
    if "norm" in type(module).__name__.lower() and name in _ONES | _ZEROS:
        parameter.fill_(float(name in _ONES))
    elif name in _TOKENS:
        nn.init.trunc_normal_(parameter, std=_TOKEN_STD)
    else:
        return False
    return True


def _unchanged(made: nn.Module, network: nn.Module) -> int:
    """Count the weight matrices that are exactly as before."""
    pairs = zip(made.parameters(), network.parameters(), strict=True)
    # Biases and other constants may end where they began.
    drawn = [(p, q) for p, q in pairs if p.ndim > 1 and p.numel() and bool(p.min() < p.max())]
    return sum(torch.equal(p, q.detach().cpu()) for p, q in drawn)
