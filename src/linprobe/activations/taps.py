"""Capture what flows through any named point of a network, and leave the network as it was.

A tap is written

- ``path``: the output of the module at this dotted path (``""`` is the network itself);
- ``path:in``: the module's input;
- ``path#2``: its second call in one forward pass, where a module is called more than once
  (``path#2:in`` for that call's input). Without a number the first call is meant.

Where a module takes or gives a tuple, list, dict or dataclass, the first tensor in it is taken,
or the one that a selector picks.
A module that stands at several paths is one module: its calls are counted together. Compiled
modules run uncompiled while they are tapped; they, and those inside `DataParallel` and the like,
go by the names that they had before.
"""

import dataclasses
import difflib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import get_ident

import torch
from torch import Tensor, nn

from linprobe.activations.inference import inference_state, is_script
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.text import counted

Consume = Callable[[str, Tensor], None]
"""Called as ``consume(tap, tensor)`` while the forward pass stands at the tap.

The tensor is the network's own, without gradient: copy what is kept, for a later in-place layer
may write to it.
"""

OnFailure = Callable[[str, Exception], None]
"""Called as ``on_failure(tap, error)`` for a tap that gives nothing; the others go on."""

Select = Callable[[str, object], Tensor | None]
"""Called as ``select(tap, value)`` with what the module gave, or ``[args, kwargs]`` at an input."""

_TAP = re.compile(r"(?P<path>.*?)(#(?P<call>[1-9]\d*))?(?P<input>:in)?", re.DOTALL)
# Names under which torch.compile, FSDP and activation checkpointing put a network.
_WRAPPING = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
NUM_NEAR = 3  # names that a message lists


class _LastTapReached(BaseException):
    """Ends a forward pass; not an Exception, so that a network's own handlers let it pass.

    Made when it is raised, and kept by nobody: its traceback holds the frames of the network's
    forward pass, and they hold its activations.
    """

    def __init__(self, ended: "_Pass") -> None:
        super().__init__()
        self.ended = ended


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
        select: picks the tensor of each tap; default: the first.

    Raises:
        LinprobeError: A path is not in the network; near names are listed. No hook was placed.
    """

    def __init__(
        self, network: nn.Module, names: Sequence[str], select: Select | None = None
    ) -> None:
        self.network = network
        self._select = select or first_tensor
        self.names = tuple(dict.fromkeys(names))
        modules = modules_by_path(network)
        self._taps = [_resolve(name, modules) for name in self.names]

    def __call__(self, *args: object, **kwargs: object) -> dict[str, Tensor]:
        """Run one forward pass, no further than the last tap, and return what was captured.

        Returns:
            Tap name to a detached copy of its tensor, in the order of `names`. Copies are taken
            when the forward pass is at the tap, before a later in-place layer can write to it.

        Raises:
            LinprobeError: A tap was not reached, or its module handles no tensor.
        """
        captured: dict[str, Tensor] = {}

        def copy(name: str, tensor: Tensor) -> None:
            captured[name] = tensor.clone()

        self.stream(copy, *args, **kwargs)
        return {name: captured[name] for name in self.names}

    def stream(self, consume: Consume, *args: object, **kwargs: object) -> None:
        """Run one forward pass as by a call, giving each tensor to `consume` when it is made."""
        self.stream_during(consume, lambda: unwrapped(self.network)(*args, **kwargs))

    def stream_during(
        self,
        consume: Consume,
        run: Callable[[], object],
        on_failure: OnFailure | None = None,
        *,
        to_the_end: bool = False,
    ) -> None:
        """Do what `stream` does where a network is not simply called: `run` makes the pass.

        With `on_failure`, what goes wrong at one tap does not end the pass; `to_the_end`, the last
        tap does not either.
        """
        if self._taps:
            with inference_state(self.network):
                _Pass(self._taps, consume, self._select, on_failure, to_the_end).run(run)


class _Pass:
    """One forward pass with hooks in place."""

    def __init__(
        self,
        taps: Sequence[_Tap],
        consume: Consume,
        select: Select,
        on_failure: OnFailure | None,
        to_the_end: bool,
    ) -> None:
        self._waiting, self._select, self._to_the_end = list(taps), select, to_the_end
        self._consume, self._on_failure = consume, on_failure
        self._thread = get_ident()
        self._calls = {tap.module: 0 for tap in taps}
        self._open: dict[nn.Module, list[int]] = {tap.module: [] for tap in taps}

    def run(self, run: Callable[[], object]) -> None:
        with hooks(self._calls, self._before, self._after):
            try:
                run()
            except _LastTapReached as end:
                # The network's forward may itself tap: an end is for the pass that raised it.
                if end.ended is not self:
                    raise
        if self._waiting and self._on_failure is None:
            raise self._missed(self._waiting)
        for tap in self._waiting:
            assert self._on_failure is not None
            self._on_failure(tap.name, self._missed([tap]))

    def _missed(self, taps: Sequence[_Tap]) -> LinprobeError:
        calls = [(tap.name, self._calls[tap.module]) for tap in taps]
        times = [f"called {counted(n, 'time')}" if n else "never called" for _, n in calls]
        missed = ", ".join(f"{c[0]!r} ({t})" for c, t in zip(calls, times, strict=True))
        return LinprobeError(
            f"the forward pass did not reach {missed}; check the tap's name and call number, "
            "or give an input that leads there"
        )

    def _before(
        self, module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> None:
        self._calls[module] += 1
        self._open[module].append(self._calls[module])
        self._keep(module, self._calls[module], [args, kwargs], is_input=True)

    def _after(self, module: nn.Module, args: tuple[object, ...], output: object) -> None:
        # A module may call itself, so that its first call is the last to end.
        self._keep(module, self._open[module].pop(), output, is_input=False)

    def _keep(self, module: nn.Module, call: int, value: object, *, is_input: bool) -> None:
        here = [
            tap
            for tap in self._waiting
            if tap.module is module and tap.call == call and tap.is_input == is_input
        ]
        for tap in here:
            try:
                self._consume(tap.name, self._tensor(tap, value).detach())
            except Exception as error:
                if self._on_failure is None:
                    raise
                self._on_failure(tap.name, error)
            self._waiting.remove(tap)
        # A network may call its modules in threads of its own, where nothing catches this.
        in_reach = get_ident() == self._thread
        if not self._waiting and not self._to_the_end and in_reach:
            raise _LastTapReached(self)

    def _tensor(self, tap: _Tap, value: object) -> Tensor:
        tensor: object = self._select(tap.name, value)
        if isinstance(tensor, Tensor):
            return tensor
        side = "input" if tap.is_input else f"output ({type(value).__name__})"
        place = f"the {side} of this {type(tap.module).__name__}"
        raise LinprobeError(
            f"tap {tap.name!r}: {place} holds no tensor; choose another point"
            if tensor is None
            else f"tap {tap.name!r}: the selector picks a {type(tensor).__name__} from {place}; "
            "expected a tensor"
        )


def _resolve(name: str, modules: Mapping[str, nn.Module]) -> _Tap:
    if name in modules:  # a module's own name may hold "#" or ":in"
        path, call, is_input = name, 1, False
    else:
        match = _TAP.fullmatch(name)
        assert match is not None  # the pattern takes any text
        path, call = plain_path(match["path"]), int(match["call"] or 1)
        is_input = match["input"] is not None
    if path not in modules:
        raise LinprobeError(f"the network has no layer {path!r}; {_hint(path, modules)}")
    if is_script(modules[path]):
        raise LinprobeError(
            f"layer {path!r} is TorchScript, which takes no hooks; expected the module that it "
            "was scripted or traced from"
        )
    return _Tap(name, modules[path], call, is_input)


def _hint(path: str, modules: Mapping[str, nn.Module]) -> str:
    known = [repr(known) for known in modules if known][:NUM_NEAR]
    some = f"it has {', '.join(known)} ..." if known else "it has no layers but itself, ''"
    return near_names(path, modules) or some


def near_names(name: str, known: Iterable[str]) -> str:
    """List the names that are spelt nearly like this one; "" if there are none."""
    near = difflib.get_close_matches(name, list(known), n=NUM_NEAR, cutoff=0.4)
    return f"near names: {', '.join(map(repr, near))}" if near else ""


@contextmanager
def hooks(
    modules: Iterable[nn.Module], before: Callable[..., None], after: Callable[..., None]
) -> Iterator[None]:
    """Hook modules, and run networks as they are written, every module by itself.

    Compiled code calls no hooks of inner modules, and fused transformer layers hand nested
    tensors from one to the next.

    Args:
        modules: of the network.
        before: called as ``before(module, args, kwargs)``.
        after: called as ``after(module, args, output)``.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, fused)
        torch.backends.mha.set_fastpath_enabled(False)
        # Without this module nothing has been compiled yet, and importing it takes seconds.
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        for module in modules:
            stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(after).remove)
        yield


def plain_path(path: str) -> str:
    """Leave out of a module's path what `torch.compile` and the like put into it."""
    return ".".join(part for part in path.split(".") if part not in _WRAPPING)


def modules_by_path(network: nn.Module) -> dict[str, nn.Module]:
    """Modules by the paths that taps are written with; a shared module stands at each of its."""
    found, plain = {"": network}, {"": ""}
    wrapped = {""} if isinstance(network, _PARALLEL) else set()
    for path, module in network.named_modules(remove_duplicate=False):
        outer, _, name = path.rpartition(".")
        if path:
            parts = [plain[outer]] if outer in wrapped else [plain[outer], name]
            plain[path] = plain_path(".".join(filter(None, parts)))
            found[plain[path]] = module
        if isinstance(module, _PARALLEL):
            wrapped.add(path)
    return found


def unwrapped(network: nn.Module) -> nn.Module:
    """Return the network inside `DataParallel`, `torch.compile` and the like, to be run alone."""
    while True:
        inner = getattr(network, "module" if isinstance(network, _PARALLEL) else "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return network
        network = inner


def first_tensor(_: str, value: object) -> Tensor | None:
    """Take what is taken without a selector."""
    return next(tensors(value), None)


def tensors(value: object) -> Iterator[Tensor]:
    """Tensors in a nest of containers, in order."""
    items: Iterable[object] = ()
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        items = value.values()
    elif isinstance(value, (list, tuple)):
        items = value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = [getattr(value, field.name) for field in dataclasses.fields(value)]
    for item in items:
        yield from tensors(item)
