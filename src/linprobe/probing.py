"""`linprobe.probe`: the probes of any network; `linprobe.fit_probes`: of any features."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from linprobe.environment import environment, peak_rss_bytes
from linprobe.errors import LinprobeError
from linprobe.features.extract import plan_groups
from linprobe.features.points import Point
from linprobe.features.reduce import AUTO, Reducer
from linprobe.features.tokens import Tokens, check_tokens
from linprobe.fitting import Penalty, Task, fit_layer, layer_notes, make_task
from linprobe.gather import Reader
from linprobe.inputs import Source
from linprobe.layer_table import Forward, Layers, choose_layers, survey
from linprobe.memory import available_bytes
from linprobe.paired import depth_steps
from linprobe.probe_report import CHECKPOINT, EXPERIMENT, Probe, ProbeReport
from linprobe.progress import Event, OnEvent, Tracker
from linprobe.randomness import fixed_randomness
from linprobe.results import CheckpointRecord, RunRecord
from linprobe.serial import to_json
from linprobe.splits import Split, integer_labels, read_groups
from linprobe.taps import Select

Array = Tensor | np.ndarray
Progress = bool | OnEvent

_EXAMPLE = 3  # samples of the example that shapes are read from; batches have other sizes
_SHARE = 0.4  # of the memory that is free may be features; solving takes as much again
_ROWS = 4096


def probe(
    network: nn.Module,
    train: object,
    test: object,
    *,
    layers: Layers = None,
    reduce: str = AUTO,
    tokens: Tokens = "mean",
    groups: object = None,
    l2: Penalty = None,
    tol: float = 1e-4,
    seed: int = 0,
    device: torch.device | str | None = None,
    batch_size: int = 256,
    forward: Forward | None = None,
    select: Select | None = None,
    memory_bytes: float | None = None,
    progress: Progress = False,
) -> ProbeReport:
    """Fit a linear probe at layers of a network, each to a certified optimum.

    Args:
        network: any module; evaluated, and left as it was, on the device that it is on.
        train: training data: ``(x, y)`` arrays or tensors, a dict of them with "labels", a
            Dataset, a DataLoader (read without shuffling), or a list of batches; see
            `linprobe.inputs`. It is read once for the labels, then once for each group of layers
            that the memory holds.
        test: test data of the same kind; looked at once by each probe.
        layers: a name or glob, a list of these, a class of modules, a predicate
            ``f(name, module)``, or None: every leaf that computes something. Names are those of
            `linprobe.layers`, and ``name:in`` for a module's input.
        reduce: "flatten", "mean", "max", "pool:K", "random:M", or "auto": flatten what fits the
            memory, and pool the rest into as many cells as fit. The report states what was done.
        tokens: of activations (n, tokens, features): "last", "first", "mean", an index, or "all"
            for a row a token with a label each (-100: none). An attention mask is honoured.
            None: the dimensions are no tokens, and `reduce` takes them.
        groups: one group a training sample, or a tuple (of train, of test): no group is both
            fitted on and held out, or in train and test.
        l2: one penalty, several to choose from on held-out training samples, or None: a path.
        tol: duality gap (nats) at which a probe counts as converged.
        seed: of the held-out samples, the solver, random reducers and the data's randomness.
        device: where features are kept and probes are solved; default: the network's.
        batch_size: samples in a forward pass, where the data doesn't come in batches.
        forward: ``f(network, batch)``, runs the network where it isn't simply called.
        select: ``f(name, value)``, picks the tensor of a layer that gives something else than a
            tensor; default: the first tensor in it.
        memory_bytes: for the features held at a time; default: 40 % of the memory that is free.
        progress: True to show it, or a function that takes `linprobe.progress.Event`.

    Raises:
        LinprobeError: Anything that can't be used; the message says what to do.
    """
    started = time.perf_counter()
    _check_options(network, reduce, tokens)
    with ExitStack() as stack:
        show = stack.enter_context(_shown(progress))
        stack.enter_context(fixed_randomness(seed))
        splits = [
            Split.read(Source(data, name, batch_size), tokens)
            for name, data in (("train", train), ("test", test))
        ]
        task = _task_of(splits, groups, tokens, l2=l2, tol=tol, seed=seed)
        place = _device(device, network)
        reader = Reader(network, forward, select, tokens, reduce, seed, place)
        budget = _budget(place) if memory_bytes is None else memory_bytes
        points = _plan(reader, splits, layers, budget)
        stages, probes = _probe_points(reader, splits, task, points, budget, show)
    config = {
        "network": type(network).__name__,
        "reduce": reduce,
        "tokens": tokens,
        "groups": groups is not None,
        "memory_bytes": budget,
        "batch_size": batch_size,
    }
    name = splits[0].source.kind
    return _report(task, probes, stages, config, name, str(place), started)


def fit_probes(
    train: Mapping[str, Array | str | Path],
    labels: Array | Sequence[int],
    test: tuple[Mapping[str, Array | str | Path], Array | Sequence[int]],
    *,
    l2: Penalty = None,
    tol: float = 1e-4,
    seed: int = 0,
    groups: object = None,
    num_classes: int | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = False,
) -> ProbeReport:
    """Fit a certified linear probe to features that are at hand, layer by layer.

    Args:
        train: layer to (n_train, n_features): tensors, arrays, memory-mapped arrays, or paths of
            ``.npy`` files, which are mapped. One layer is copied to memory at a time.
        labels: (n_train,) class numbers.
        test: the same layers of the test samples, and their labels.
        l2: as in `probe`.
        tol: as in `probe`.
        seed: as in `probe`.
        groups: as in `probe`.
        num_classes: K; default: one more than the largest label.
        device: where probes are solved.
        progress: as in `probe`.

    Raises:
        LinprobeError: Anything that can't be used; the message names the layer.
    """
    started = time.perf_counter()
    test_features, test_labels = _check_features(train, test)
    y, yt = _label_array(labels, "train"), _label_array(test_labels, "test")
    numbered = read_groups(groups, len(y), len(yt))
    task = make_task(y, yt, groups=numbered, l2=l2, tol=tol, seed=seed, num_classes=num_classes)
    place, probes, copying = task.place, {}, 0.0
    kept = torch.device(device)
    with _shown(progress) as show:
        opened = {name: (_open(train[name]), _open(test_features[name])) for name in train}
        for name, (x, xt) in opened.items():
            _check_array(name, "train", x, len(y))
            _check_array(name, "test", xt, len(yt))
        meter = _Meter(show, task, {name: x.shape[1] for name, (x, _) in opened.items()})
        for index, (name, (x, xt)) in enumerate(opened.items()):
            begun = time.perf_counter()
            features = _copy(x, kept, place), _copy(xt, kept, None)
            copying += time.perf_counter() - begun
            on_event = meter.solving(name)
            probes[name] = fit_layer(task, name, index, *features, on_event=on_event)
            meter.finished(probes[name])
    stages = _stages(copying, probes)
    return _report(task, probes, stages, {"network": None}, "arrays", str(kept), started)


# The network's side


def _check_options(network: object, reduce: str, tokens: Tokens) -> None:
    if not isinstance(network, nn.Module):
        raise LinprobeError(
            f"network is a {type(network).__name__}; expected a torch.nn.Module (for features "
            "that are at hand: linprobe.fit_probes)"
        )
    check_tokens(tokens)
    if reduce != AUTO:
        Reducer.parse(reduce)


def _task_of(splits: list[Split], groups: object, tokens: Tokens, **options: Any) -> Task:
    train, test = splits
    numbered = read_groups(groups, train.num_samples, test.num_samples)
    if numbered is not None:
        numbered = numbered[train.sequence]
    elif tokens == "all":
        numbered = train.sequence  # tokens of one sequence are no independent samples
    return make_task(train.labels, test.labels, groups=numbered, **options)


def _plan(reader: Reader, splits: list[Split], layers: Layers, budget: float) -> list[Point]:
    num_rows = sum(len(split.labels) for split in splits)
    batch = next(iter(splits[0].source)).head(_EXAMPLE)
    table = survey(reader.network, batch, reader.forward)
    names = choose_layers(reader.network, table, layers)
    return reader.plan(names, batch, num_rows, budget, skip_unfit=layers is None)


def _probe_points(
    reader: Reader,
    splits: list[Split],
    task: Task,
    points: list[Point],
    budget: float,
    show: OnEvent,
) -> tuple[dict[str, float], dict[str, Probe]]:
    train, test = splits
    widths = {point.name: point.width for point in points}
    by_name = {point.name: (i, point) for i, point in enumerate(points)}
    meter = _Meter(show, task, widths)
    place, probes, reading = task.place, {}, 0.0
    for group in plan_groups(widths, len(train.labels) + len(test.labels), budget):
        begun = time.perf_counter()
        chosen = [by_name[name][1] for name in group]
        features = reader.gather(train, chosen, place, meter.reading("train", group))
        test_features = reader.gather(test, chosen, None, meter.reading("test", group))
        reading += time.perf_counter() - begun
        for name in group:
            index, point = by_name[name]
            # Popped, so that a layer's features are freed once its probe is done.
            probes[name] = fit_layer(
                task,
                name,
                index,
                features.pop(name),
                test_features.pop(name),
                stated=point.stated,
                columns=point.columns,
                on_event=meter.solving(name),
            )
            meter.finished(probes[name])
    return _stages(reading, probes), probes


def _device(device: torch.device | str | None, network: nn.Module) -> torch.device:
    if device is None:
        return next(network.parameters(), torch.empty(0)).device
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise LinprobeError(
            f"device is {str(device)!r}, which can't be used here ({first}); expected 'cpu' or "
            "a GPU that this PyTorch sees, such as 'cuda'"
        ) from error
    return place


def _budget(place: torch.device) -> float:
    if place.type == "cuda":
        return _SHARE * torch.cuda.mem_get_info(place)[0]
    return _SHARE * available_bytes()


# The arrays' side


def _check_features(train: Mapping[str, object], test: object) -> tuple[Mapping[str, Any], Any]:
    if not isinstance(test, tuple | list) or len(test) != 2 or not isinstance(test[0], Mapping):
        raise LinprobeError("test is no pair; expected ({layer: features}, labels)")
    if not isinstance(train, Mapping) or not train:
        raise LinprobeError("there are no layers; expected a dict of layer to features")
    features, labels = test
    odd = sorted(set(train) ^ set(features))
    if odd:
        raise LinprobeError(
            f"layer {odd[0]!r} stands in one split only; expected the same layers in both"
        )
    return features, labels


def _label_array(labels: Any, split: str) -> Tensor:
    values = integer_labels(torch.as_tensor(labels), split)
    if values.ndim != 1 or not len(values):
        raise LinprobeError(
            f"{split} labels have shape {tuple(values.shape)}; expected one class number for each "
            "sample, and at least one sample"
        )
    return values


def _open(features: Array | str | Path) -> Array:
    if isinstance(features, str | Path):
        try:
            mapped: np.ndarray = np.load(features, mmap_mode="r", allow_pickle=False)
            return mapped
        except (OSError, ValueError) as error:
            raise LinprobeError(
                f"{os.fspath(features)} can't be read as .npy ({error}); expected an array of "
                "(n_samples, n_features)"
            ) from error
    return features


def _check_array(name: str, split: str, features: Array, count: int) -> None:
    if not isinstance(features, Tensor | np.ndarray) or features.ndim != 2:
        shape = features.shape if isinstance(features, Tensor | np.ndarray) else None
        raise LinprobeError(
            f"layer {name!r}: {split} features are a {type(features).__name__}"
            + (f" of shape {tuple(shape)}" if shape is not None else "")
            + "; expected an array (n_samples, n_features): flatten or pool each sample"
        )
    if len(features) != count:
        raise LinprobeError(
            f"layer {name!r}: {len(features):,} rows of {split} features for {count:,} labels; "
            "expected as many"
        )


def _copy(features: Array, device: torch.device, place: Tensor | None) -> Tensor:
    """(n_samples, n_features) float32 or float64, row i written to row ``place[i]``."""
    double = features.dtype in (torch.float64, np.float64)
    dtype = torch.float64 if double else torch.float32
    copy = torch.empty(tuple(features.shape), dtype=dtype, device=device)
    for start in range(0, len(features), _ROWS):
        rows = features[start : start + _ROWS]
        # Copied first: PyTorch warns of arrays that can't be written to.
        block = rows if isinstance(rows, Tensor) else torch.from_numpy(np.array(rows))
        spots = slice(start, start + _ROWS) if place is None else place[start : start + _ROWS]
        copy[spots] = block.to(device, dtype)
    return copy


# Both


class _Meter:
    """Turns what goes on into events."""

    def __init__(self, show: OnEvent, task: Task, widths: Mapping[str, int]) -> None:
        each = 4e-4 + 2e-3 * len(task.order) / 60_000  # seconds a feature, roughly
        self._costs = {name: 0.1 + each * width for name, width in widths.items()}
        self._tracker = Tracker(show, sum(self._costs.values()))
        self._path = task.config.l2_path
        self._labels = {name: f"{name} ({i}/{len(widths)})" for i, name in enumerate(widths, 1)}

    def reading(self, split: str, group: Sequence[str]) -> Callable[[int, int], None]:
        """Receiver of a reader's progress."""
        span = group[0] if len(group) == 1 else f"{group[0]} to {group[-1]}"

        def on_rows(done: int, total: int) -> None:
            text = f"{split} features of {span}: {done:,} of {total:,}"
            self._tracker.report(CHECKPOINT, "extract", text)

        return on_rows

    def solving(self, layer: str) -> Callable[[str, float, float, float], None]:
        """Receiver of a solver's progress."""
        solves = 0

        def on_solve(stage: str, l2: float, passes: float, gap: float) -> None:
            nonlocal solves
            solves += 1
            share = min(1.0, solves / (len(self._path) + 1))
            text = (
                f"{self._labels[layer]}, {stage}: l2 {l2:.0e}, {passes:.0f} passes, gap {gap:.1e}"
            )
            self._tracker.report(CHECKPOINT, "solve", text, begun=share * self._costs[layer])

        return on_solve

    def finished(self, probe: Probe) -> None:
        """A layer is done."""
        record = probe.record
        self._tracker.spend(self._costs[record.layer])
        text = (
            f"{self._labels[record.layer]}: test error {record.test_error_rate:.4f}, "
            f"l2 {record.l2:.0e}, gap {record.duality_gap:.1e}, {record.seconds:.1f} s"
        )
        unsolved = "" if record.converged else f", NOT converged ({record.status})"
        self._tracker.report(CHECKPOINT, "solve", text + unsolved, milestone=True)


@contextmanager
def _shown(progress: Progress) -> Iterator[OnEvent]:
    if progress is True:
        from linprobe.terminal import make_console, show_progress

        with show_progress(make_console(stderr=True)) as show:
            yield show
    else:
        yield progress or _silent


def _silent(event: Event) -> None:
    """Default: say nothing."""


def _stages(reading: float, probes: Mapping[str, Probe]) -> dict[str, float]:
    return {"extract": reading, "solve": sum(p.record.seconds for p in probes.values())}


def _report(
    task: Task,
    probes: dict[str, Probe],
    stages: dict[str, float],
    config: dict[str, Any],
    data_name: str,
    device: str,
    started: float,
) -> ProbeReport:
    notes = [*task.notes, *(note for p in probes.values() for note in layer_notes(task, p))]
    predicted = {
        name: p.predictions.predicted for name, p in probes.items() if p.predictions is not None
    }
    checkpoint = CheckpointRecord(
        name=CHECKPOINT,
        step=0,
        network_test_error_rate=float("nan"),
        stages=stages,
        probes=tuple(probe.record for probe in probes.values()),
        steps=depth_steps(predicted, task.test_labels),
    )
    run = RunRecord(
        experiment=EXPERIMENT,
        protocol="certified",
        seed=task.config.seed,
        quick=False,
        config=to_json({**config, "device": device, "probe": asdict(task.config), "notes": notes}),
        dataset={
            "name": data_name,
            "num_train": len(task.train_labels),
            "num_test": len(task.test_labels),
            "sha256": {},
            "majority_error_rate": task.majority_error_rate,
        },
        environment=environment(torch.get_num_threads(), device),
        seconds=time.perf_counter() - started,
        peak_rss_bytes=peak_rss_bytes(),
        complete=True,
        checkpoints=(checkpoint,),
    )
    return ProbeReport(run, probes, task.test_labels)
