"""A copy of a network that computes in float64, and the layers that it gives in float64."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from linprobe.activations.deviations import forward_from, select_base, select_delta
from linprobe.activations.extract import Extractor
from linprobe.activations.inference import lacks_values, network_device, own_tensors
from linprobe.activations.rules import ProbePoint
from linprobe.activations.taps import Taps, tensors, unwrapped
from linprobe.data.batches import Batch
from linprobe.runtime.devices import free_bytes, supports_float64
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.memory import FEATURE_SHARE
from linprobe.runtime.randomness import seeded
from linprobe.runtime.text import cause, layer_reason, size_text

_Readable = tuple[Extractor, list[ProbePoint], dict[str, str]]
_WIDE = {True: torch.complex128, False: torch.float64}  # of complex numbers, of real ones


def in_float64(extractor: Extractor, points: Sequence[ProbePoint], batch: Batch) -> _Readable:
    """Find what runs a copy of a network in float64, and the layers that it gives so.

    Args:
        extractor: of the network, which is left as it is.
        points: layers to read, as `Extractor.plan` gives them.
        batch: an example.

    Returns:
        The extractor of the copy, the points that it gives in float64, and for every other layer
        why it is none of them.

    Raises:
        LinprobeError: There is no copy, or it does not run; the message says why.
    """
    wide = replace(extractor, network=float64_copy(extractor.network), dtype=torch.float64)
    if (exact := _by_deviations(wide, points, batch)) is not None:
        return exact
    return _checked(wide, points, batch)


def _by_deviations(wide: Extractor, points: Sequence[ProbePoint], batch: Batch) -> _Readable | None:
    """Read layers as deviations from the first sample; None: the network is not of that kind."""
    options, inputs = wide.options, batch.args
    is_usual = options.forward is None and options.select is None and not batch.kwargs
    if not (is_usual and len(inputs) == 1 and all(point.is_plain for point in points)):
        return None
    if not isinstance(inputs[0], Tensor) or not inputs[0].is_floating_point():
        return None
    sample = inputs[0][:1].to(network_device(wide.network), torch.float64)
    forward, bases = forward_from(sample), dict[str, Tensor]()
    reader = replace(wide, options=replace(options, forward=forward, select=select_delta))
    taps = Taps(wide.network, [point.tap for point in points], select_base)
    try:
        found = _checked(reader, points, batch)
        taps.stream_during(bases.__setitem__, reader.runner(batch))
    except LinprobeError:
        return None
    if found[2]:
        return None
    place = wide.device
    based = [replace(p, base=bases[p.tap].flatten().to(place)) for p in found[1]]
    return reader, based, {}


def _checked(wide: Extractor, points: Sequence[ProbePoint], batch: Batch) -> _Readable:
    """Run an example and see which layers it gives in float64."""
    by_tap, found, failures = {p.tap: p for p in points}, set[str](), dict[str, str]()
    watch = _NarrowingWatch()

    def note(tap: str, tensor: Tensor) -> None:
        narrow = watch.narrowed or tensor.dtype
        if narrow == torch.float64:
            found.add(tap)
            return
        name = str(narrow).removeprefix("torch.")
        failures[by_tap[tap].layer] = f"the network's own code computes in {name} there or before"

    def fail(tap: str, error: Exception) -> None:
        layer = by_tap[tap].layer
        failures[layer] = layer_reason(layer, error)

    with watch, seeded(wide.seed):
        taps = Taps(wide.network, list(by_tap), wide.options.select)
        taps.stream_during(note, wide.runner(batch), fail)
    read = [replace(p, dtype=torch.float64) for p in points if p.tap in found]
    return wide, read, failures


def float64_copy(network: nn.Module) -> nn.Module:
    """Copy a network, with its parameters, buffers and other tensors in float64.

    The network itself is left as it is. Tensors that modules share, they share in the copy too;
    whole numbers, such as quantised weights, stay what they are.

    Raises:
        LinprobeError: It can't be copied, or there is no memory for it; the message says why.
    """
    device = network_device(network)
    if not supports_float64(device):
        raise LinprobeError(f"its device {device} has no float64; move the network to the CPU")
    if lacks_values(network) or any(p.is_meta for p in network.parameters()):
        raise LinprobeError("its weights are not in memory; load them without offloading")
    network = unwrapped(network)
    held = _held(network)
    needed = sum(t.numel() * _wide_dtype(t).itemsize for t in held)
    if needed > (room := FEATURE_SHARE * free_bytes(device)):
        raise LinprobeError(
            f"a copy of the network takes {size_text(needed)}, and {size_text(int(room))} are "
            "given to it, two fifths of the free memory"
        )
    try:
        with torch.no_grad():
            known = {id(tensor): _widened(tensor) for tensor in held}
            return deepcopy(network, known).double()
    except Exception as error:
        raise LinprobeError(f"the network can't be copied ({cause(error)})") from error


def _held(network: nn.Module) -> list[Tensor]:
    """List the tensors that modules hold, registered or not, each once."""
    found: dict[int, Tensor] = {}
    for module in network.modules():
        for named in (*own_tensors(module), vars(module)):
            found |= {id(item): item for item in named.values() if isinstance(item, Tensor)}
    return list(found.values())


def _wide_dtype(tensor: Tensor) -> torch.dtype:
    real = tensor.is_floating_point()
    return _WIDE[tensor.is_complex()] if real or tensor.is_complex() else tensor.dtype


def _widened(tensor: Tensor) -> Tensor:
    wide = tensor.detach().to(_wide_dtype(tensor), copy=True)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(wide, requires_grad=False)
    return wide


class _NarrowingWatch(TorchDispatchMode):
    """Sees whether operators make narrower numbers of float64 ones within a block.

    Attributes:
        narrowed: dtype of the first such numbers; None: there were none.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.narrowed: torch.dtype | None = None

    def __torch_dispatch__(
        self, func: Any, types: object, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        found = func(*args, **(kwargs or {}))
        if self.narrowed is None and any(map(_is_wide, tensors([args, kwargs or {}]))):
            given = (x.dtype for x in tensors(found) if x.is_floating_point())
            self.narrowed = next((dtype for dtype in given if dtype.itemsize < 8), None)
        return found


def _is_wide(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float64 and tensor.ndim > 0  # a number takes no part in dtypes
