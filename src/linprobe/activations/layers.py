"""Which points of a network can be probed, and which of them are meant."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from linprobe.activations.globs import deepened, matching, widened
from linprobe.activations.inference import inference_state, is_script, network_device
from linprobe.activations.taps import (
    NUM_NEAR,
    hooks,
    modules_by_path,
    near_names,
    tensors,
    unwrapped,
)
from linprobe.data.batches import Batch
from linprobe.data.inputs import example_batch
from linprobe.runtime.defaults import callers_defaults
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.memory import is_out_of_memory
from linprobe.runtime.numbers import as_whole
from linprobe.runtime.terminals import printable
from linprobe.runtime.text import cause, layer_name

Forward = Callable[[nn.Module, object], object]
"""Called as ``forward(network, batch)`` where the network isn't called with the batch's inputs."""

Predicate = Callable[[str, nn.Module], bool]
Layers = str | Sequence[str] | type[nn.Module] | Predicate | None

_PARAMETRIZATIONS = "parametrizations"  # torch.nn.utils.parametrize keeps its modules there
_INPUT = ":in"


@dataclass(frozen=True)
class LayerRow:
    """One probe point: one call of one module.

    Attributes:
        name: the module's path, with ``#2`` and so on for calls after the first.
        type: class of the module.
        shape: of its output, samples included.
        num_features: of one sample, flattened; 0 where there is no dimension of samples.
        num_calls: how often the module is called in one forward pass.
        is_leaf: no other module is called inside it.
        passes_through: the output is the input itself, as of dropout at evaluation.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    num_features: int
    num_calls: int
    is_leaf: bool
    passes_through: bool


@dataclass(frozen=True)
class LayerTable:
    """Probe points of a network, in the order in which a forward pass ends them."""

    rows: tuple[LayerRow, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the probe points."""
        return tuple(row.name for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[LayerRow]:
        return iter(self.rows)

    def __getitem__(self, name: str) -> LayerRow:
        for row in self.rows:
            if row.name == name:
                return row
        raise LinprobeError(unknown_layer(name, self.names))

    def __str__(self) -> str:
        cells = [("layer", "type", "output", "features", "calls")]
        for row in self.rows:
            shape = " x ".join(map(str, row.shape))
            names = printable(row.name), printable(row.type)
            cells.append((*names, shape, f"{row.num_features:,}", str(row.num_calls)))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        line = "  ".join(f"{{:{side}{w}}}" for side, w in zip("<<<>>", widths, strict=True))
        return "\n".join(line.format(*row) for row in cells)


def layers(network: nn.Module, example: object, *, forward: Forward | None = None) -> LayerTable:
    """List the points of a network that can be probed.

    Args:
        network: left as it was, on the device that it is on.
        example: an input (n_samples, ...); or a batch (inputs, labels) or dict; or data as
            `linprobe.probe` takes it, whose first batch is run.
        forward: runs the network, where it isn't simply called with the inputs.

    Returns:
        A row for each call of each module; where a module gives several tensors, of the first.

    Raises:
        LinprobeError: An example that can't be read, or a network that fails on it.
    """
    return survey(network, example_batch(example), forward)


def survey(network: nn.Module, batch: Batch, forward: Forward | None) -> LayerTable:
    """Do what `layers` does, for a batch."""
    watch = _Watch(network, len(batch))
    with inference_state(network), hooks(watch.paths, watch.before, watch.after):
        run_network(network, batch, forward)
    return LayerTable(tuple(watch.rows()))


def run_network(
    network: nn.Module,
    batch: Batch,
    forward: Forward | None,
    within: Callable[[Batch], AbstractContextManager[object]] = nullcontext,
    dtype: torch.dtype | None = None,
) -> None:
    """Make one forward pass on the network's device; `LinprobeError` shows why it fails.

    The pass is made `within` what that gives for the batch on the device. Floating inputs have the
    given dtype, what `forward` is given too; None: arguments have that of the parameters.
    """
    own = next((p.dtype for p in network.parameters() if p.is_floating_point()), None)
    moved = batch.to(network_device(network), dtype or own, whole=dtype is not None)
    try:
        with callers_defaults(), within(moved):
            if forward is None:
                unwrapped(network)(*moved.args, **moved.kwargs)
            else:
                forward(network, moved.raw)
    except LinprobeError:
        raise
    except Exception as error:
        advice = ""
        if is_out_of_memory(error):
            advice = "; give smaller batches, by batch_size or as the data has them"
        elif isinstance(error, TypeError) and forward is None:
            advice = "; if it is called otherwise, give forward=lambda network, batch: ..."
        elif "type" in str(error) and (kinds := _other_dtypes(moved)):
            advice = (
                f"; it was given {kinds}: where it takes real numbers give x.float(), and images "
                "as in its training, x.float() / 255 say"
            )
        raise LinprobeError(
            f"the network fails on a batch of {len(batch)} samples: {cause(error)}{advice}"
        ) from error


def numbers_as_names(chosen: Any) -> Layers:
    """Replace numbers among `Layers` by the names that modules have for them."""
    if as_whole(chosen) is not None:
        return layer_name(chosen)
    if not isinstance(chosen, Iterable) or isinstance(chosen, str) or callable(chosen):
        return chosen
    return [item if as_whole(item) is None else layer_name(item) for item in chosen]


def _other_dtypes(batch: Batch) -> str:
    """Name the dtypes of a batch's inputs that aren't floating."""
    given = tensors([batch.args, batch.kwargs])
    names = {str(x.dtype).removeprefix("torch.") for x in given if not x.is_floating_point()}
    return ", ".join(sorted(names))


def choose_layers(network: nn.Module, table: LayerTable, chosen: Layers) -> tuple[str, ...]:
    """Names of the taps that `chosen` means, each once.

    Args:
        network: as `table` lists it.
        table: its probe points.
        chosen: None: every leaf in the order of calls, less those that pass their input through;
            a name or pattern (`linprobe.activations.globs`); a list of these; a class of modules;
            or a predicate, called as ``predicate(name, module)``.

    Raises:
        LinprobeError: Nothing is meant; near names are shown.
    """
    if chosen is None:
        names = [row.name for row in table if row.is_leaf and not row.passes_through] or [""]
    elif isinstance(chosen, str):
        names = _matches(chosen, table, network)
    elif isinstance(chosen, type) or callable(chosen):
        names = _wanted(chosen, table, network)
    elif not isinstance(chosen, Iterable) or not all(isinstance(p, str) for p in chosen):
        raise LinprobeError(
            f"layers is {chosen!r}; expected a name or pattern, a list of these, a class of "
            "modules, a predicate or None"
        )
    else:
        names = [name for pattern in chosen for name in _matches(pattern, table, network)]
        if not names:
            raise LinprobeError("layers is empty; expected at least one name")
    return tuple(dict.fromkeys(names))


def unknown_layer(name: str, known: Sequence[str]) -> str:
    """Say that a layer isn't there, and which are."""
    hint = near_names(name, known) or f"there are {_some(known)}"
    return f"there is no layer {name!r}; {hint}"


def _wanted(chosen: type | Predicate, table: LayerTable, network: nn.Module) -> list[str]:
    modules, names = modules_by_path(network), []
    for name in table.names:
        module = modules[name if name in modules else name.rpartition("#")[0]]
        if isinstance(module, chosen) if isinstance(chosen, type) else chosen(name, module):
            names.append(name)
    if not names:
        what = chosen.__name__ if isinstance(chosen, type) else "the predicate"
        raise LinprobeError(f"no layer is chosen by {what}; the network has {_some(table.names)}")
    return names


def _matches(pattern: str, table: LayerTable, network: nn.Module) -> list[str]:
    base = pattern.removesuffix(_INPUT)
    suffix = pattern[len(base) :]
    if base in table.names or base in modules_by_path(network):
        return [pattern]
    names = matching(base, table.names)
    if not names:
        deep = deepened(base)
        inside = len(matching(deep, table.names)) if "*" in base else 0
        raise LinprobeError(
            f"there is no layer {base!r}, in which * ends at a dot; {deep!r} takes {inside}"
            if inside
            else unknown_layer(base, table.names)
        )
    return [name + suffix for name in names]


def glob_notes(table: LayerTable, chosen: Layers) -> Iterator[str]:
    """Say which patterns of single characters leave out layers 10, 11 and so on of a kind."""
    patterns = [chosen] if isinstance(chosen, str) else chosen
    for pattern in patterns if isinstance(patterns, Sequence) else ():
        base = pattern.removesuffix(_INPUT)
        wide = widened(base)
        if wide == base or base in table.names:
            continue
        taken = matching(base, table.names)
        types = {table[name].type for name in taken}
        alike = [name for name in matching(wide, table.names) if table[name].type in types]
        if left := [name for name in alike if name not in taken]:
            yield (
                f"Pattern {pattern!r} takes {len(taken)} of {len(alike)} layers of one kind "
                f"({table[left[0]].type}) and leaves out {_some(left)}: {wide!r} takes all."
            )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:NUM_NEAR]))
    return f"{shown} ..." if len(names) > NUM_NEAR else shown or "no layers inside"


def unreached(network: nn.Module, table: LayerTable) -> list[str]:
    """Find modules of a list, such as experts, that are not in `table` though others of it are."""
    known = set(table.names)
    numbered = [path for path in modules_by_path(network) if path.rpartition(".")[2].isdecimal()]
    used = {path.rpartition(".")[0] for path in numbered if path in known}
    return [path for path in numbered if path.rpartition(".")[0] in used and path not in known]


def sample_dimension(shape: Sequence[int], num_samples: int) -> int | None:
    """Find the samples: first, or second in a recurrent net's (tokens, samples, features)."""
    if len(shape) and shape[0] == num_samples:
        return 0
    return 1 if len(shape) == 3 and shape[1] == num_samples else None


class _Watch:
    """Hooks that note every call of every module."""

    def __init__(self, network: nn.Module, num_samples: int) -> None:
        self.paths: dict[nn.Module, str] = {}
        for path, module in modules_by_path(network).items():
            computes_weight = _PARAMETRIZATIONS in path.split(".")
            if path and not is_script(module) and not computes_weight:
                self.paths.setdefault(module, path)
        self._num_samples = num_samples
        self._calls = dict.fromkeys(self.paths, 0)
        self._open: list[_Call] = []
        self._done: list[_Call] = []

    def before(self, module: nn.Module, args: object, kwargs: object) -> None:
        for outer in self._open:
            outer.is_leaf = False
        self._calls[module] += 1
        given = {_identity(tensor) for tensor in tensors([args, kwargs])} - {None}
        self._open.append(_Call(module, self._calls[module], given))

    def after(self, module: nn.Module, args: object, output: object) -> None:
        call = self._open.pop()
        tensor = next(tensors(output), None)
        if tensor is not None and not tensor.is_nested:
            call.shape = tuple(tensor.shape)
            call.passes_through = _identity(tensor) in call.given
            self._done.append(call)

    def rows(self) -> Iterator[LayerRow]:
        for call in self._done:
            path = self.paths[call.module]
            counted = sample_dimension(call.shape, self._num_samples) is not None
            yield LayerRow(
                name=path if call.number == 1 else f"{path}#{call.number}",
                type=type(call.module).__name__,
                shape=call.shape,
                num_features=math.prod(call.shape) // self._num_samples if counted else 0,
                num_calls=self._calls[call.module],
                is_leaf=call.is_leaf,
                passes_through=call.passes_through,
            )


@dataclass
class _Call:
    """One call of a module while its table is made."""

    module: nn.Module
    number: int
    given: set[tuple[int, int, int] | None]
    is_leaf: bool = True
    shape: tuple[int, ...] = ()
    passes_through: bool = False


def _identity(tensor: Tensor) -> tuple[int, int, int] | None:
    """Equal for a view of the same values, unless something was written in between.

    None: tensors of inference mode, nested and sparse ones, and those of vmap don't tell.
    """
    if tensor.is_inference() or tensor.is_nested or tensor.layout != torch.strided:
        return None
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):  # inside vmap: without memory
        return None
    return tensor.data_ptr(), tensor.numel(), tensor._version
