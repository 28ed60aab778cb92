"""Which dimensions of an activation hold its features, told from the operations around it.

A shape doesn't tell tokens from channels. Operations do: a convolution gives channels in the
second dimension, a matrix product features in the last, and transposes, reshapes and elementwise
operations carry on what is known of their argument. One forward pass is followed so.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from linprobe.activations.inference import is_script
from linprobe.activations.taps import hooks, tensors
from linprobe.data.batches import Batch

Axes = frozenset[int]

_LAST = {
    *("linear", "embedding", "embedding_bag", "layer_norm", "rms_norm", "matmul"),
    *("lstm", "gru", "rnn_tanh", "rnn_relu", "multi_head_attention_forward"),
}
_SECOND = {"batch_norm", "group_norm", "instance_norm", "local_response_norm"}
_PRODUCTS = {"matmul", "bmm", "mm", "addmm", "baddbmm"}
_PERMUTED = {
    *("permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "t", "adjoint"),
    *("T", "mT", "H", "mH"),
}
_REGROUPED = {
    *("view", "reshape", "flatten", "unflatten", "view_as", "reshape_as", "unsqueeze", "squeeze"),
    "ravel",
}
_PLACED = ("conv", "max_pool", "avg_pool", "adaptive_", "lp_pool")  # and 1d, 2d, 3d
# Modules by their names: quantised ones, and other libraries', aren't of PyTorch's classes.
_KINDS = re.compile(r"(?P<second>Conv[123]d|BatchNorm|GroupNorm)|Linear|Embedding|(Layer|RMS)Norm")


@dataclass
class Facts:
    """Knowledge of a tensor; shared by those that an elementwise operation makes of it.

    Attributes:
        features: dimensions that hold features; None: not known.
        origin: the network's input that the tokens come from; None: not known.
        before: of the tensor that it was before its dimensions changed places, and these places.
    """

    features: Axes | None = None
    origin: str | None = None
    before: "tuple[Facts, list[int]] | None" = None


class Layouts(TorchFunctionMode):
    """Follows a forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self._known: Any = WeakTensorKeyDictionary()

    @contextmanager
    def following(self, network: nn.Module, batch: Batch) -> Iterator[None]:
        """Follow what the network does with this batch within the block."""
        raw = batch.raw if isinstance(batch.raw, Mapping) else {}
        for name, value in (*raw.items(), *batch.kwargs.items(), *enumerate(batch.args)):
            for tensor in tensors(value):
                self._known[tensor] = Facts(origin=str(name))
        modules = [module for module in network.modules() if not is_script(module)]
        with hooks(modules, self._before, self._after), self:
            yield

    def of(self, tensor: Tensor) -> Facts:
        """Find what is known of a tensor; a later operation on it may add to this."""
        facts: Facts = self._known.setdefault(tensor, Facts())
        return facts

    def _before(self, module: nn.Module, args: object, kwargs: object) -> None: ...

    def _after(self, module: nn.Module, args: object, output: object) -> None:
        """Fill in where a module's operations couldn't be followed."""
        made = next(tensors(output), None)
        if made is None or made.is_nested or self.of(made).features:
            return
        given = [x for x in tensors(args) if not x.is_nested and x.shape == made.shape]
        if given and given[0] is not made:
            self._known[made] = self.of(given[0])
        kind = _KINDS.search(type(module).__name__)
        own: Any = getattr(module, "features_dimension", None)  # of a layer of Keras
        if own is not None:
            _tell(self.of(made), {own(made.ndim)})
        elif kind is not None:
            _tell(self.of(made), {1 if kind["second"] else made.ndim - 1})

    def __torch_function__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        """Run an operation, and note what it tells."""
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        made = [output] if isinstance(output, Tensor) else output
        if isinstance(made, list | tuple):
            # What can't be made out of an unusual call is not known, and ends no forward pass.
            with suppress(Exception):
                call = _Call(_name(func), func, args, kwargs)
                for tensor in made:
                    if isinstance(tensor, Tensor) and tensor not in self._known:
                        self._known[tensor] = self._facts(call, tensor)
        return output

    def _facts(self, call: "_Call", made: Tensor) -> Facts:
        if call.name == "einsum":
            return self._of_einsum(call, made)
        if call.name in _PRODUCTS and len(call.operands) >= 2:
            return self._of_product(call, made)
        main = call.operands[0] if call.has_main else self._main(call.operands, made)
        if main is None:
            return Facts()
        facts = self.of(main)
        if (told := _told(call, main, facts.features)) is not None:
            _tell(facts, told)
        elif main.shape == made.shape and call.name not in _PERMUTED:
            return facts
        if call.name in ("embedding", "embedding_bag"):
            return Facts(frozenset({made.ndim - 1}), facts.origin)
        if told is not None and main.ndim == made.ndim:
            if call.name.startswith("conv"):
                return Facts(told, facts.origin)
            return facts if main.shape == made.shape else Facts(facts.features, facts.origin)
        if facts.features is None:
            moved = call.name in _PERMUTED
            return Facts(None, facts.origin, (facts, _places(call, main)) if moved else None)
        return Facts(_carried(call, main, made, facts.features), facts.origin)

    def _main(self, operands: Sequence[Tensor], made: Tensor) -> Tensor | None:
        """The operand that a tensor mostly is, the first of those of which most is known."""

        def rank(x: Tensor) -> tuple[bool, ...]:
            of = self.of(x)
            known = of.features is not None, of.origin is not None
            return x.ndim == made.ndim, *known, x.shape == made.shape

        return max((x for x in operands if x in self._known), key=rank, default=None)

    def _is_activation(self, x: Tensor) -> bool:
        return x in self._known and self.of(x) != Facts()

    def _of_product(self, call: "_Call", made: Tensor) -> Facts:
        """Follow ``a @ b``: rows from a, columns from b."""
        a, b = call.operands[-2:]
        of_a = self.of(a)
        if b.ndim == 2 and not self._is_activation(b):  # weights
            if of_a.features is None:
                _tell(of_a, {a.ndim - 1})
            return Facts(of_a.features, of_a.origin) if made.ndim == a.ndim else Facts()
        of_b = self.of(b)
        if of_a.features is None or of_b.features is None or made.ndim < 2:
            return Facts(None, of_a.origin)
        shift_a, shift_b, rows = made.ndim - a.ndim, made.ndim - b.ndim, made.ndim - 2
        found = {i + shift_a for i in of_a.features if i + shift_a <= rows}
        found |= {i + shift_b for i in of_b.features if i + shift_b != rows}
        return Facts(frozenset(found), of_b.origin if rows in found else of_a.origin)

    def _of_einsum(self, call: "_Call", made: Tensor) -> Facts:
        left, arrow, right = call.args[0].replace(" ", "").partition("->")
        if not arrow or "." in left:
            return Facts()
        terms = list(zip(left.split(","), call.operands, strict=True))
        tracked = [(letters, x) for letters, x in terms if self._is_activation(x)]
        if not tracked:
            return Facts()
        features, places = set(), set()
        for letters, x in tracked:
            if (of := self.of(x).features) is None:
                return Facts(None, self.of(x).origin)
            features |= {letter for i, letter in enumerate(letters) if i in of}
            places |= {letter for i, letter in enumerate(letters) if i not in of}
        axes = {i for i, c in enumerate(right) if c in features or c not in places}
        return Facts(frozenset(axes), self.of(tracked[0][1]).origin)


@dataclass(frozen=True)
class _Call:
    """One call of an operation."""

    name: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def operands(self) -> list[Tensor]:
        return list(tensors([self.args, *self.kwargs.values()]))

    @property
    def has_main(self) -> bool:
        """Tell whether the first operand is what the others, weights say, are applied to."""
        first = self.name in _LAST or self.name in _SECOND or self.name == "__getitem__"
        return first or self.name.startswith(_PLACED)

    def value(self, place: int, name: str) -> Any:
        return self.args[place] if place < len(self.args) else self.kwargs[name]


def _name(func: Any) -> str:
    name = getattr(func, "__name__", "")
    if name == "__get__":  # of a property such as x.T
        name = getattr(getattr(func, "__self__", None), "__name__", "")
    return {"__matmul__": "matmul"}.get(name, name)


def _tell(facts: Facts, features: Iterable[int]) -> None:
    if not facts.features:
        facts.features = frozenset(features)
        if facts.before is not None:
            source, places = facts.before
            _tell(source, (places[axis] for axis in facts.features))


def _told(call: _Call, main: Tensor, known: Axes | None) -> Axes | None:
    """Where an operation finds or puts features; None: it doesn't tell."""
    name, last = call.name, main.ndim - 1
    if name.startswith(_PLACED):
        digits = [int(c) for c in name if c.isdigit()]
        axis = main.ndim - digits[0] - 1
        if known is not None and axis not in known and main.shape[axis] > 1:
            ones = name.startswith("conv") and math.prod(call.value(1, "weight").shape[2:]) == 1
            if ones or not name.startswith("conv"):  # it mixes tokens
                return known
        return known if known and not name.startswith("conv") else frozenset({axis})
    if name in _SECOND:
        return known or frozenset({1})
    if name == "layer_norm" and len(call.value(1, "normalized_shape")) > 1:
        return None
    if name in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
        return frozenset({last})
    # A matrix may mix tokens: what is known of them stays.
    return (known or frozenset({last})) if name in _LAST and "embedding" not in name else None


def _carried(call: _Call, main: Tensor, made: Tensor, features: Axes) -> Axes | None:
    """Where the features are after an operation that moves, joins or drops dimensions."""
    if call.name == "__getitem__":
        return _indexed(call.args[1], main.ndim, features)
    if call.name in _PERMUTED:
        return _followed(call, main, features)
    if call.name in _REGROUPED:
        return _regrouped(main.shape, made.shape, features)
    if main.ndim == made.ndim:
        return features
    if call.name == "unfold" and main.ndim == 4:
        return frozenset({1})
    if main.numel() == made.numel():
        return _regrouped(main.shape, made.shape, features)
    return _followed(call, main, features) if made.ndim < main.ndim else None


def _followed(call: _Call, main: Tensor, features: Axes) -> Axes:
    return frozenset(i for i, axis in enumerate(_places(call, main)) if axis in features)


def _places(call: _Call, main: Tensor) -> list[int]:
    """Run the operation on a tensor whose sizes tell the dimensions apart, without values."""
    sizes = [1_003 + i for i in range(main.ndim)]
    standing = torch.empty(sizes, device="meta")
    made = call.func(*(standing if x is main else x for x in call.args), **call.kwargs)
    made = next(tensors(made))
    return [sizes.index(size) for size in made.shape]


def _regrouped(before: Sequence[int], after: Sequence[int], features: Axes) -> Axes | None:
    """Follow dimensions that are joined or split: blocks of both shapes hold as many numbers."""
    found: set[int] = set()
    i = j = 0
    while i < len(before) and j < len(after):
        start, first = i, j
        size, other = before[i], after[j]
        i, j = i + 1, j + 1
        while size != other:
            if size < other:
                size, i = size * before[i], i + 1
            else:
                other, j = other * after[j], j + 1
        own = [axis in features for axis in range(start, i)]
        if len(own) == 1 or j - first == 1:
            found |= set(range(first, j)) if any(own) else set()
        elif own[-1] or own[0]:
            found.add(j - 1 if own[-1] else first)
        elif any(own):
            return None
    return frozenset(found)


def _indexed(index: Any, ndim: int, features: Axes) -> Axes:
    """Follow dimensions through ``x[index]``."""
    parts = list(index) if isinstance(index, tuple) else [index]
    used = sum(_consumed(part) for part in parts)
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)
    found: list[bool] = []
    axis, is_first = 0, True
    for part in parts:
        count = ndim - used if part is Ellipsis else _consumed(part)
        if part is None:
            found.append(False)
        elif part is Ellipsis or isinstance(part, slice):
            found += [i in features for i in range(axis, axis + count)]
        elif not isinstance(part, int):  # indices, which give their own dimensions once
            of = count == 1 and axis in features
            found += [of] * (_dimensions(part) if is_first else 0)
            is_first = False
        axis += count
    return frozenset(i for i, is_feature in enumerate(found) if is_feature)


def _consumed(part: Any) -> int:
    if part is None or part is Ellipsis:
        return 0
    is_mask = isinstance(part, Tensor) and part.dtype == torch.bool
    return part.ndim if is_mask else 1


def _dimensions(part: Any) -> int:
    is_mask = isinstance(part, Tensor) and part.dtype == torch.bool
    return 1 if is_mask else torch.as_tensor(part).ndim
