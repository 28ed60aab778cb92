"""`linprobe.fit_probes`: certified probes of features that are at hand."""

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linprobe.data.batches import label_tensor
from linprobe.data.splits import integer_labels, read_groups
from linprobe.evaluation.plan import Wanted, control_config
from linprobe.pipeline.assembly import Meter, Progress, make_report, shown, thread_count
from linprobe.pipeline.comparison import OF_NETWORKS, controls_of_task, with_extras
from linprobe.pipeline.fitting import Penalty, Task, fit_layer, make_task
from linprobe.pipeline.report import Probe, ProbeReport
from linprobe.records.schema import ControlsRecord, MethodRecord, RunConfig
from linprobe.runtime.devices import find_device, free_bytes
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.memory import FEATURE_SHARE
from linprobe.runtime.progress import OnEvent
from linprobe.runtime.text import size_text
from linprobe.runtime.threads import NARROW, map_layers

Array = Tensor | np.ndarray

_ROWS = 4096


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
    controls: Wanted = (),
    types: object = None,
    mdl: bool = False,
    progress: Progress = False,
) -> ProbeReport:
    """Fit a certified linear probe to features that are at hand, layer by layer.

    Args:
        train: layer to (n_train, n_features): tensors, arrays, memory-mapped arrays, or paths of
            ``.npy`` files, which are mapped. One layer is copied to memory at a
            time; of narrow layers, as many as there are threads.
        labels: (n_train,) class numbers.
        test: the same layers of the test samples, and their labels.
        l2: as in `probe`.
        tol: as in `probe`.
        seed: as in `probe`.
        groups: as in `probe`.
        num_classes: K; default: one more than the largest label.
        device: where probes are solved.
        controls: as in `probe`, except those that start from a network or its inputs.
        types: as in `probe`.
        mdl: as in `probe`.
        progress: as in `probe`.

    Raises:
        LinprobeError: Anything that can't be used; the message names the layer.
    """
    started = time.perf_counter()
    test_features, test_labels = _check_features(train, test)
    y, yt = _label_array(labels, "train"), _label_array(test_labels, "test")
    numbered = read_groups(groups, len(y), len(yt))
    task = make_task(y, yt, groups=numbered, l2=l2, tol=tol, seed=seed, num_classes=num_classes)
    wanted = control_config(controls, seed)
    for name in set(wanted.names) & set(OF_NETWORKS):
        raise LinprobeError(
            f"control {name!r} starts from a network, and only its features are given here; "
            "expected other controls, or linprobe.probe"
        )
    task = with_extras(task, wanted, mdl=mdl, types=types)
    kept = find_device(device)
    opened = {name: (_open(train[name]), _open(test_features[name])) for name in train}
    for name, (x, xt) in opened.items():
        _check_array(name, "train", x, len(y))
        _check_array(name, "test", xt, len(yt))
        _check_room(name, x, xt, kept)
    with shown(progress) as show:
        stages, probes = _fit_each(opened, task, kept, show)
    config = RunConfig(
        device=str(kept),
        method=MethodRecord(**asdict(task.config)),
        controls=ControlsRecord(**asdict(wanted)),
        mdl=mdl,
    )
    rules = controls_of_task(task, wanted)
    return make_report(task, probes, stages, config, "arrays", started, rules)


def _fit_each(
    opened: Mapping[str, tuple[Array, Array]], task: Task, device: torch.device, show: OnEvent
) -> tuple[dict[str, float], dict[str, Probe]]:
    """Copy the features of a layer and fit its probe, narrow layers side by side."""
    widths = {name: x.shape[1] for name, (x, _) in opened.items()}
    meter, place, places = Meter(show, task, widths), task.place, list(opened)
    copying = []

    def fit(name: str) -> Probe:
        begun = time.perf_counter()
        train, test = opened[name]
        features = _copy(train, device, place), _copy(test, device, None)
        copying.append(time.perf_counter() - begun)
        return fit_layer(task, name, places.index(name), *features, on_event=meter.solving(name))

    begun, found = time.perf_counter(), {}
    for probe in map_layers(fit, widths, _num_workers(opened, device)):
        found[probe.record.layer] = probe
        meter.finished(probe)
    wall, copied = time.perf_counter() - begun, sum(copying)
    # Seconds of threads, as shares of what the clock on the wall shows.
    share = copied / (copied + sum(probe.record.seconds for probe in found.values()))
    stages = {"extract": share * wall, "solve": (1 - share) * wall}
    return stages, {name: found[name] for name in opened}


def _num_workers(opened: Mapping[str, tuple[Array, Array]], device: torch.device) -> int:
    """As many narrow layers at a time as there are threads, and memory for their copies."""
    sizes = (_size(*pair) for pair in opened.values() if pair[0].shape[1] <= NARROW)
    room = FEATURE_SHARE * free_bytes(device) / max(1, max(sizes, default=1))
    return max(1, min(thread_count(device), int(room)))


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
    values = integer_labels(label_tensor(labels, split), split)
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
    if not _is_real(features):
        raise LinprobeError(
            f"layer {name!r}: {split} features have dtype {features.dtype}"
            + (f", layout {features.layout}" if isinstance(features, Tensor) else "")
            + "; expected real numbers in a dense array"
        )
    if len(features) != count:
        raise LinprobeError(
            f"layer {name!r}: {len(features):,} rows of {split} features for {count:,} labels; "
            "expected as many"
        )


def _is_real(features: Array) -> bool:
    if isinstance(features, Tensor):
        return features.layout == torch.strided and not features.is_complex()
    return features.dtype.kind in "biuf"


def _check_room(name: str, train: Array, test: Array, device: torch.device) -> None:
    size = _size(train, test)
    room = free_bytes(device)
    if size > room:
        fits = max(1, int(train.shape[1] * room / size / 2))
        raise LinprobeError(
            f"layer {name!r}: {train.shape[1]:,} features of {len(train) + len(test):,} samples "
            f"take {size_text(size)}, and {size_text(room)} of memory are free; expected less: "
            f"give fewer samples, or {fits:,} of the features"
        )


def _size(*features: Array) -> int:
    """Bytes of copies."""
    return sum(_dtype(x).itemsize * math.prod(x.shape) for x in features)


def _dtype(features: Array) -> torch.dtype:
    """What features are solved in: float64 stays, all else is float32."""
    return torch.float64 if features.dtype in (torch.float64, np.float64) else torch.float32


def _copy(features: Array, device: torch.device, place: Tensor | None) -> Tensor:
    """(n_samples, n_features) float32 or float64, row i written to row ``place[i]``."""
    dtype = _dtype(features)
    copy = torch.empty(tuple(features.shape), dtype=dtype, device=device)
    for start in range(0, len(features), _ROWS):
        rows = features[start : start + _ROWS]
        # Copied first: PyTorch warns of arrays that can't be written to.
        block = rows.detach() if isinstance(rows, Tensor) else torch.from_numpy(np.array(rows))
        spots = slice(start, start + _ROWS) if place is None else place[start : start + _ROWS]
        copy[spots] = block.to(device, dtype)
    return copy
