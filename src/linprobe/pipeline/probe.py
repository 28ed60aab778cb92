"""`linprobe.probe`: certified probes of any network."""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from linprobe.activations.extract import Extractor
from linprobe.activations.features import plan_groups
from linprobe.activations.layers import Forward, Layers, choose_layers, network_device, survey
from linprobe.activations.pooling import AUTO, Reducer
from linprobe.activations.rules import Point
from linprobe.activations.taps import Select, modules_by_path
from linprobe.activations.tokens import Tokens, check_tokens
from linprobe.data.inputs import Source
from linprobe.data.splits import Split, read_groups
from linprobe.evaluation.controls import Pair
from linprobe.evaluation.plan import Wanted, control_config
from linprobe.evaluation.untrained import reinitialised
from linprobe.pipeline.assembly import Meter, Progress, make_report, shown, thread_count
from linprobe.pipeline.comparison import controls_of_task, wants_inputs, with_extras
from linprobe.pipeline.fitting import Penalty, Task, check_seed, fit_layer, make_task
from linprobe.pipeline.report import Probe, ProbeReport
from linprobe.records.schema import (
    ControlsRecord,
    ExtractionRecord,
    MethodRecord,
    ProbeRecord,
    RunConfig,
)
from linprobe.runtime.devices import find_device, free_bytes
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.memory import FEATURE_SHARE
from linprobe.runtime.progress import OnEvent, ignore
from linprobe.runtime.randomness import seeded
from linprobe.runtime.threads import map_layers

_EXAMPLE = 3  # samples of the example that shapes are read from; batches have other sizes
_INPUT_TAP = ":in"  # of the network itself
_CALL = re.compile(r"(#\d+)?(:in)?$")
_CHANNELS_FIRST = (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d, nn.AvgPool1d)


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
    controls: Wanted = (),
    types: object = None,
    mdl: bool = False,
    progress: Progress = False,
) -> ProbeReport:
    """Fit a linear probe at layers of a network, each to a certified optimum.

    Args:
        network: any module; evaluated, and left as it was, on the device that it is on.
        train: training data: ``(x, y)`` arrays or tensors, a dict of them with "labels", a
            Dataset, a DataLoader (read without shuffling), or a list of batches; see
            `linprobe.data.inputs`. It is read once for the labels, then once for each group of
            layers that the memory holds.
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
        controls: what the curve is compared with, of "shuffled_labels", "control_task",
            "untrained", "random_features", "input" and "majority"; see
            `linprobe.evaluation.controls`. Each random one is drawn three times, or as often
            as a `ControlConfig` says.
        types: (of train, of test), a number a sample: its type in the control task. Default:
            the sample's cluster among those of the inputs.
        mdl: whether to measure the description length of the labels at each layer.
        progress: True to show it, or a function that takes `linprobe.runtime.progress.Event`,
            called by several threads, one at a time.

    Raises:
        LinprobeError: Anything that can't be used; the message says what to do.
    """
    started = time.perf_counter()
    check_seed(seed)
    wanted = control_config(controls, seed)
    _check_options(network, reduce, tokens)
    with ExitStack() as stack:
        show = stack.enter_context(shown(progress))
        stack.enter_context(seeded(seed))
        splits = [
            Split.read(Source(data, name, batch_size), tokens)
            for name, data in (("train", train), ("test", test))
        ]
        task = _task_of(splits, groups, tokens, l2=l2, tol=tol, seed=seed)
        place = network_device(network) if device is None else find_device(device)
        extractor = Extractor(network, forward, select, tokens, reduce, seed, place)
        budget = FEATURE_SHARE * free_bytes(place) if memory_bytes is None else memory_bytes
        points, notes = _plan(extractor, splits, layers, budget)
        task = replace(task, notes=(*task.notes, *notes))
        inputs = _inputs(extractor, splits, task, budget) if wants_inputs(wanted, types) else None
        task = with_extras(task, wanted, mdl=mdl, types=types, inputs=inputs)
        stages, probes = _probe_points(extractor, splits, task, points, budget, show)

        def untrained(plain: Task) -> list[ProbeRecord]:
            other = replace(extractor, network=reinitialised(network, seed))
            found = _probe_points(other, splits, plain, points, budget, ignore)[1]
            return [probe.record for probe in found.values()]

        others = controls_of_task(task, wanted, inputs, untrained)
    config = RunConfig(
        device=str(place),
        method=MethodRecord(**asdict(task.config)),
        extraction=ExtractionRecord(
            network=type(modules_by_path(network)[""]).__name__,  # not its compiled wrapper
            reduce=reduce,
            tokens=tokens,
            groups=groups is not None,
            batch_size=batch_size,
            memory_bytes=budget,
        ),
        controls=ControlsRecord(**asdict(wanted)),
        mdl=mdl,
    )
    name = splits[0].source.kind
    return make_report(task, probes, stages, config, name, started, others)


def _check_options(network: object, reduce: str, tokens: Tokens) -> None:
    if not isinstance(network, nn.Module):
        raise LinprobeError(
            f"network is a {type(network).__name__}; expected a torch.nn.Module (for features "
            "that are at hand: linprobe.fit_probes)"
        )
    if any(parameter.is_meta for parameter in network.parameters()):
        raise LinprobeError(
            "the network has parameters on the device 'meta', without values; expected one that "
            "is loaded"
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


def _plan(
    extractor: Extractor, splits: list[Split], layers: Layers, budget: float
) -> tuple[list[Point], list[str]]:
    """The points to probe, and a note on those that can't be."""
    num_rows = sum(len(split.labels) for split in splits)
    batch = splits[0].source.first()
    table = survey(extractor.network, batch.head(_EXAMPLE), extractor.forward)
    names = choose_layers(extractor.network, table, layers)
    # Another number of samples: a shape that has both by chance has no dimension of samples.
    batch = batch.head(_EXAMPLE - 1)
    points, left_out = extractor.plan(names, batch, num_rows, budget, skip_unfit=layers is None)
    notes = []
    if left_out:
        name, why = next(iter(left_out.items()))
        others = f", and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        notes.append(f"Left out: layer {name!r}, which {why}{others}.")
    odd = list(_channels_as_tokens(extractor.network, points))
    if odd:
        others = f", and of {len(odd) - 1} more" if len(odd) > 1 else ""
        notes.append(
            f"The channels of layer {odd[0]!r}{others} were taken for tokens; tokens=None flattens "
            "what a one-dimensional convolution gives."
        )
    return points, notes


def _channels_as_tokens(network: nn.Module, points: list[Point]) -> Iterator[str]:
    """Points whose second dimension is one of channels, though tokens were picked along it."""
    modules = modules_by_path(network)
    for point in points:
        module = modules.get(_CALL.sub("", point.name))
        if point.reduction.tokens is not None and isinstance(module, _CHANNELS_FIRST):
            yield point.name


def _inputs(extractor: Extractor, splits: list[Split], task: Task, budget: float) -> Pair:
    """The network's inputs, flattened: train in the task's order, and test."""
    if extractor.tokens == "all":
        raise LinprobeError(
            "controls that start from the network's inputs need a row for each sample; with "
            "tokens='all' leave out 'random_features' and 'input', and give types"
        )
    whole = replace(extractor, reduce="flatten", tokens=None)
    batch = splits[0].source.first().head(_EXAMPLE)
    num_rows = sum(len(split.labels) for split in splits)
    points, _ = whole.plan([_INPUT_TAP], batch, num_rows, budget, skip_unfit=False)
    train = whole.gather(splits[0], points, task.place)[_INPUT_TAP]
    return train, whole.gather(splits[1], points)[_INPUT_TAP]


def _probe_points(
    extractor: Extractor,
    splits: list[Split],
    task: Task,
    points: list[Point],
    budget: float,
    show: OnEvent,
) -> tuple[dict[str, float], dict[str, Probe]]:
    train, test = splits
    widths = {point.name: point.width for point in points}
    by_name = {point.name: (i, point) for i, point in enumerate(points)}
    meter = Meter(show, task, widths)
    place, num_workers = task.place, thread_count(extractor.device)
    found: dict[str, Probe] = {}
    reading = fitting = 0.0
    for group in plan_groups(widths, len(train.labels) + len(test.labels), budget):
        begun = time.perf_counter()
        chosen = [by_name[name][1] for name in group]
        features = extractor.gather(train, chosen, place, meter.reading("train", group))
        test_features = extractor.gather(test, chosen, None, meter.reading("test", group))
        gathered = time.perf_counter()

        def fit(
            name: str, x: dict[str, Tensor] = features, xt: dict[str, Tensor] = test_features
        ) -> Probe:
            index, point = by_name[name]
            # Popped, so that a layer's features are freed once its probe is done.
            return fit_layer(
                *(task, name, index, x.pop(name), xt.pop(name)),
                stated=point.stated,
                columns=point.columns,
                on_event=meter.solving(name),
            )

        for probe in map_layers(fit, {name: widths[name] for name in group}, num_workers):
            found[probe.record.layer] = probe
            meter.finished(probe)
        reading += gathered - begun
        fitting += time.perf_counter() - gathered
    return {"extract": reading, "solve": fitting}, {name: found[name] for name in widths}
