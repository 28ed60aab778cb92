"""Evaluate a network for its activations alone, and leave it as it was."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from itertools import chain
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from linprobe.runtime.devices import kept_random
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.randomness import kept_generators

ONE_AT_A_TIME = RLock()
"""Held while a network runs: all threads see its hooks, its modes and the random numbers."""

_COPIED_BYTES = 4 * 2**20  # of buffers, smallest first, that are copied before each forward pass


@contextmanager
def inference_state(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards everything is as it was, errors included.

    Restored are every module's train or eval mode, all buffers (statistics that a forward pass
    updates, or replaces, or caches that it adds), parameters that hooks put in place for the
    pass or that a change of mode writes to (as LoRA does), and the random numbers of the CPU and
    of each GPU that the network is on. Large buffers, such as quantised weights, are copied only
    when something is about to write to them.

    Raises:
        LinprobeError: Lazy modules, which have no weights yet.
    """
    with ONE_AT_A_TIME:
        state = _State(network)
        try:
            own_random = kept_generators(network.modules())
            with torch.no_grad(), kept_random(state.devices), own_random, state.kept.watched():
                if any(training for _, training in state.modes):
                    _set_mode(network, False)
                yield
        finally:
            state.restore()


class _State:
    """Modes, parameters and buffers of a network; one walk through its modules, for each batch."""

    def __init__(self, network: nn.Module) -> None:
        self.modes = [(module, module.training) for module in network.modules()]
        # nn.Module offers no public way to see which module owns a tensor, or to put back the very
        # tensor that stood there.
        own = [own_tensors(module) for module, _ in self.modes]
        self.owned = [(held, dict(held)) for pair in own for held in pair]
        held = [t for _, named in self.owned for t in named.values() if t is not None]
        if any(map(nn.parameter.is_lazy, held)):
            raise _lazy(network)
        self.devices = {tensor.device for tensor in held}
        self.moved = [m for m, training in self.modes if training and _has_own_modes(m)]
        written = (p for module in self.moved for p in module.parameters(recurse=False))
        buffers = (b for _, named in own for b in named.values() if b is not None)
        self.kept = _Buffers(list(dict.fromkeys([*buffers, *written])))

    def restore(self) -> None:
        for module in self.moved:
            _set_mode(module, True)
        for module, training in self.modes:
            if module.training is not training:
                module.training = training
        for own, named in self.owned:
            if own.keys() != named.keys() or any(own[name] is not named[name] for name in own):
                own.clear()
                own.update(named)
        self.kept.restore()


def own_tensors(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give a module's own parameters and buffers by name: as it holds them, to be set."""
    if is_script(module):
        own = module.named_parameters(recurse=False), module.named_buffers(recurse=False)
        return dict(own[0]), dict(own[1])
    return module._parameters, module._buffers


def _has_own_modes(module: nn.Module) -> bool:
    kind = type(module)
    return kind.train is not nn.Module.train or kind.eval is not nn.Module.eval


def _set_mode(module: nn.Module, training: bool) -> None:
    try:
        module.train() if training else module.eval()
    except (NotImplementedError, TypeError):  # exported programs, or modes of another kind
        for part in module.modules():
            part.training = training


class _Buffers(TorchDispatchMode):
    """Values of buffers and the like: small ones are copied at once, large ones when written to.

    Version counters don't tell in time what was written, and miss batch norm's statistics and
    what is written through ``.data``. Operators say what they write before they run; to ask each
    of them takes some 20 microseconds, so that it is done only where there are large buffers.
    """

    supports_higher_order_operators = True

    def __init__(self, buffers: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._values: dict[Tensor, Tensor] = {}
        self._large: dict[int, list[Tensor]] = {}
        room = _COPIED_BYTES
        for buffer in sorted(buffers, key=_num_bytes):
            if buffer.is_meta:  # has no values
                continue
            room -= _num_bytes(buffer)
            if room >= 0 or (storage := _storage(buffer)) is None:
                self._values[buffer] = buffer.detach().clone()
            else:
                self._large.setdefault(storage, []).append(buffer)

    def watched(self) -> "_Buffers | nullcontext[None]":
        """Watch what is written within a block, where there is need."""
        return self if self._large else nullcontext()

    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        for place, name in _written(func):
            value = args[place] if place < len(args) else kwargs.get(name)
            for tensor in value if isinstance(value, list | tuple) else (value,):
                self._keep(tensor)
        return func(*args, **kwargs)

    def _keep(self, tensor: object) -> None:
        if isinstance(tensor, Tensor):
            for buffer in self._large.pop(_storage(tensor) or 0, ()):
                self._values[buffer] = buffer.detach().clone()

    def restore(self) -> None:
        """Give back to buffers the values that they had."""
        for buffer, value in self._values.items():
            # Writing to a buffer that did not change would break a pending backward pass.
            if not _equal(buffer, value):
                # In this order: the mode that is switched off switches gradients on.
                with torch.inference_mode(buffer.is_inference()), torch.no_grad():
                    buffer.copy_(value)


@cache
def _written(func: object) -> tuple[tuple[int, str], ...]:
    """Place and name of each argument that an operator writes to."""
    schema = getattr(func, "_schema", None)  # operators that call functions have none
    return tuple(
        (place, argument.name)
        for place, argument in enumerate(schema.arguments if schema else ())
        # Batch norm does not say that it writes to its statistics.
        if (argument.alias_info is not None and argument.alias_info.is_write)
        or argument.name.startswith("running_")
    )


def _storage(tensor: Tensor) -> int | None:
    """Tell storages apart, which views share; None: sparse and opaque tensors have none."""
    try:
        number: int = tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):
        return None
    return number


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _equal(buffer: Tensor, value: Tensor) -> bool:
    try:
        if torch.equal(buffer, value):
            return True
        return bool(((buffer == value) | (buffer.isnan() & value.isnan())).all())
    except (NotImplementedError, RuntimeError):  # sparse and nested tensors
        return False


def network_device(network: nn.Module) -> torch.device:
    """Where a network takes its inputs.

    The device that accelerate runs it on, where that moves weights; else that of its first
    parameter or buffer with values; without any, the CPU.
    """
    for module in network.modules():
        hook = getattr(module, "_hf_hook", None)
        for part in getattr(hook, "hooks", (hook,)):
            if (device := getattr(part, "execution_device", None)) is not None:
                return torch.device(device)
    tensors = chain(network.parameters(), network.buffers())
    return next((tensor.device for tensor in tensors if not tensor.is_meta), torch.device("cpu"))


def lacks_values(network: nn.Module) -> bool:
    """Tell whether parameters are on the device ``meta`` and no hook is there to load them."""
    if network._forward_pre_hooks or "forward" in vars(network):  # accelerate's is of the latter
        return False
    own = network.parameters(recurse=False)
    return any(p.is_meta for p in own) or any(map(lacks_values, network.children()))


def _lazy(network: nn.Module) -> LinprobeError:
    """A first pass would give a lazy module its weights: that is for the owner to do."""
    path, module = next(
        (path, module)
        for path, module in network.named_modules()
        if any(nn.parameter.is_lazy(t) for own in own_tensors(module) for t in own.values())
    )
    return LinprobeError(
        f"layer {path!r} is a {type(module).__name__} without weights as yet; expected a network "
        "that was run once"
    )


def is_script(module: nn.Module) -> bool:
    """Tell whether a module was scripted or traced: hooks can't be placed on such a module."""
    return isinstance(module, torch.jit.ScriptModule)
