"""PyTorch's process-wide settings: as the arithmetic here needs them, and as the caller has them.

A default device or dtype, or autocast, that the caller has set would otherwise put random draws on
a GPU, or the solver's products into bfloat16. The caller's network still runs under them.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass

import torch

_KINDS = ("cpu", "cuda")  # of devices, whose autocast matters


@dataclass(frozen=True)
class _Defaults:
    device: torch.device
    dtype: torch.dtype
    autocast: tuple[bool, ...]

    @classmethod
    def now(cls) -> "_Defaults":
        autocast = tuple(torch.is_autocast_enabled(kind) for kind in _KINDS)
        return cls(torch.get_default_device(), torch.get_default_dtype(), autocast)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Set what is otherwise now, and only that: a default device slows every call down."""
        now = _Defaults.now()
        with ExitStack() as stack:
            if now.device != self.device:
                stack.enter_context(self.device)
            if now.dtype != self.dtype:
                stack.callback(torch.set_default_dtype, now.dtype)
                torch.set_default_dtype(self.dtype)
            for kind, enabled, given in zip(_KINDS, self.autocast, now.autocast, strict=True):
                if enabled != given:
                    dtype = torch.get_autocast_dtype(kind)
                    stack.enter_context(torch.autocast(kind, dtype, enabled=enabled))
            yield


_OWN = _Defaults(torch.device("cpu"), torch.float32, (False,) * len(_KINDS))
_callers: ContextVar[_Defaults | None] = ContextVar("callers", default=None)


@contextmanager
def own_defaults() -> Iterator[None]:
    """Compute on the CPU unless told otherwise, in float32 unless told otherwise, and exactly."""
    now = _Defaults.now()
    if now == _OWN:
        yield
        return
    token = _callers.set(now)
    try:
        with _OWN.applied():
            yield
    finally:
        _callers.reset(token)


@contextmanager
def callers_defaults() -> Iterator[None]:
    """Within `own_defaults`: the settings that the caller had, for code of the caller's."""
    callers = _callers.get()
    with nullcontext() if callers is None else callers.applied():
        yield
