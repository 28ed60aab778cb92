"""Capture what flows through any named point of a network, and leave the network as it was.

A tap is written

- ``path``: the output of the module at this dotted path (``""`` is the network itself);
- ``path:in``: the module's input;
- ``path#2``: its second call in one forward pass, where a module is called more than once
  (``path#2:in`` for that call's input). Without a number the first call is meant.

Where a module takes or gives a tuple, list, dict or dataclass, the first tensor in it is taken.
"""

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from linprobe.errors import LinprobeError

_TAP = re.compile(r"(?P<path>.*?)(#(?P<call>[1-9]\d*))?(?P<input>:in)?")
_NUM_SUGGESTIONS = 3


class _AllCaptured(BaseException):
    """Ends a forward pass; not an Exception, so that a network's own handlers let it pass."""


@dataclass(frozen=True)
class _Tap:
    name: str
    module: nn.Module
    call: int
    is_input: bool


class Taps:
    """Points of a network to capture; call it like the network.

    Args:
        network: any module.
        names: taps, as the module's text says.

    Raises:
        LinprobeError: A path is not in the network; near names are listed. No hook was placed.
    """

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        self.network = network
        self.names = tuple(names)
        modules = dict(network.named_modules(remove_duplicate=False))
        self._taps = [_resolve(name, modules) for name in self.names]

    def __call__(self, *args: object, **kwargs: object) -> dict[str, Tensor]:
        """Run one forward pass, no further than the last tap, and return what was captured.

        Returns:
            Tap name to a detached copy of its tensor, in the order of `names`. Copies are taken
            when the module is left, before a later in-place layer can write to its output.

        Raises:
            LinprobeError: A tap was not reached, or its module handles no tensor.
        """
        captured: dict[str, Tensor] = {}
        with inference_state(self.network), ExitStack() as stack:
            for module in {id(tap.module): tap.module for tap in self._taps}.values():
                taps = [tap for tap in self._taps if tap.module is module]
                for handle in self._hook(module, taps, captured):
                    stack.callback(handle.remove)
            try:
                self.network(*args, **kwargs)
            except _AllCaptured:
                pass
        missing = [name for name in self.names if name not in captured]
        if missing:
            raise LinprobeError(
                f"the forward pass did not reach {', '.join(map(repr, missing))}: the module was "
                "not called, or not that often; check the tap or the network's input"
            )
        return {name: captured[name] for name in self.names}

    def _hook(
        self, module: nn.Module, taps: list[_Tap], captured: dict[str, Tensor]
    ) -> list[RemovableHandle]:
        calls = 0

        def before(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
            nonlocal calls
            calls += 1
            keep([args, kwargs], is_input=True)

        def after(_: nn.Module, args: tuple[object, ...], output: object) -> None:
            keep(output, is_input=False)

        def keep(value: object, *, is_input: bool) -> None:
            for tap in taps:
                if tap.is_input == is_input and tap.call == calls and tap.name not in captured:
                    tensor = next(_tensors(value), None)
                    if tensor is None:
                        side = "takes" if is_input else "gives"
                        raise LinprobeError(
                            f"tap {tap.name!r}: {type(module).__name__} {side} no tensor "
                            f"({type(value).__name__}); choose another point"
                        )
                    captured[tap.name] = tensor.detach().clone()
            if len(captured) == len(set(self.names)):
                raise _AllCaptured

        return [
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after),
        ]


@contextmanager
def inference_state(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards everything is as it was, errors included.

    Restored are every module's train or eval mode, all buffers (statistics that a forward pass
    updates) and the state of the CPU's and each GPU's random numbers.
    """
    modes = [(module, module.training) for module in network.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in network.buffers()]
    gpus = sorted({p.device.index or 0 for p in network.parameters() if p.is_cuda})
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=gpus):
            network.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def _resolve(name: str, modules: dict[str, nn.Module]) -> _Tap:
    match = _TAP.fullmatch(name)
    assert match is not None  # the pattern takes any text
    path = match["path"]
    if path not in modules:
        near = difflib.get_close_matches(path, modules, n=_NUM_SUGGESTIONS, cutoff=0.4)
        known = near or [known for known in modules if known][:_NUM_SUGGESTIONS]
        raise LinprobeError(
            f"the network has no layer {path!r}; near names: {', '.join(map(repr, known))}"
        )
    return _Tap(name, modules[path], int(match["call"] or 1), match["input"] is not None)


def _tensors(value: object) -> Iterator[Tensor]:
    """Tensors in a nest of containers, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name))
