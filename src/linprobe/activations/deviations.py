"""Networks of dense layers computed as deviations from one sample, without a constant to round.

In float64 too, a layer that is a constant plus far less than 1e-16 of it tells nothing. A pair of
what one sample gives and of how far the others are from it does: a dense layer maps the deviations
without its bias, and a piecewise linear function multiplies them by its slope. Rounding is then
relative to the deviations; that of the sample's own numbers is the same for all, as if biases had
other last digits.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Deviations:
    """A batch of numbers, as those of one sample and the distances from it.

    Args:
        base: (1, ...), of the sample.
        delta: (n, ...), what is added to it.
    """

    def __init__(self, base: Tensor, delta: Tensor) -> None:
        self.base, self.delta = base, delta

    def __add__(self, other: object) -> "Deviations":
        if not isinstance(other, Deviations):
            return NotImplemented
        return Deviations(self.base + other.base, self.delta + other.delta)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: object, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute one of the functions of PyTorch that are known here."""
        kwargs = kwargs or {}
        if func is functional.linear:
            return _linear(*args, **kwargs)
        if func is functional.leaky_relu:
            return _leaky(*args, **{k: v for k, v in kwargs.items() if k != "inplace"})
        if func in (functional.relu, torch.relu):
            return _leaky(args[0], 0.0)
        if func is torch.cat:
            return _cat(*args, **kwargs)
        if func is functional.dropout and not kwargs.get("training", True):
            return args[0]
        return NotImplemented


def _linear(x: Deviations, weight: Tensor, bias: Tensor | None = None) -> Deviations:
    return Deviations(functional.linear(x.base, weight, bias), functional.linear(x.delta, weight))


def _leaky(x: Deviations, negative_slope: float = 0.01) -> Deviations:
    """Multiply deviations by the slope, but where they cross zero."""
    base, whole = x.base, x.base + x.delta
    positive = base > 0
    moved = torch.where(positive, x.delta, negative_slope * x.delta)
    mapped = functional.leaky_relu(base, negative_slope)
    crossed = (whole > 0) != positive
    return Deviations(
        mapped,
        torch.where(crossed, functional.leaky_relu(whole, negative_slope) - mapped, moved),
    )


def _cat(parts: Sequence[Deviations], dim: int = 0) -> Any:
    if dim == 0 or not all(isinstance(part, Deviations) for part in parts):
        return NotImplemented
    bases, deltas = [part.base for part in parts], [part.delta for part in parts]
    return Deviations(torch.cat(bases, dim), torch.cat(deltas, dim))


def forward_from(sample: Tensor) -> Callable[[nn.Module, Any], object]:
    """Make what runs a network on the deviations of a batch ``(x, labels)`` from a sample.

    Args:
        sample: (1, ...), on the network's device and in its dtype.
    """

    def forward(network: nn.Module, batch: Any) -> object:
        return network(Deviations(sample, batch[0] - sample))

    return forward


def select_delta(tap: str, value: object) -> Tensor | None:
    """Pick the deviations of a layer; see `linprobe.activations.taps.Select`."""
    return next((x.delta for x in _found(value)), None)


def select_base(tap: str, value: object) -> Tensor | None:
    """Pick what the sample gives at a layer."""
    return next((x.base for x in _found(value)), None)


def _found(value: object) -> Iterator[Deviations]:
    if isinstance(value, Deviations):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _found(item)
