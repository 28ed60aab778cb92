"""`linprobe.fit_probes`: certified probes of features that are at hand."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linprobe.core.features import FileRows, file_rows, safetensors_rows
from linprobe.data.containers import as_rows
from linprobe.data.copies import RARE, copies_note, feature_hashes, repeats
from linprobe.data.labels import Names, read_labels
from linprobe.data.npy import map_npy
from linprobe.data.splits import read_groups, read_weights
from linprobe.evaluation.options import EvaluationOptions
from linprobe.pipeline.array_layers import Array, ArrayLayers, any_streamed
from linprobe.pipeline.controls import OF_NETWORKS, controls_of_task, with_plan
from linprobe.pipeline.dealing import DIFFERENT, Distribute, check_distribute
from linprobe.pipeline.deprecated import grouped_options
from linprobe.pipeline.engine import probe_layers
from linprobe.pipeline.folder import RunFolder, hashed_settings, run_folder
from linprobe.pipeline.progress import Progress, progress_shown, single_meter
from linprobe.pipeline.report import ProbeReport, make_report
from linprobe.pipeline.shared_rows import SharedRows
from linprobe.pipeline.task import Task, make_task
from linprobe.probes.config import ProbeConfig
from linprobe.records.config import ExtractionRecord
from linprobe.runtime.defaults import own_defaults
from linprobe.runtime.devices import find_device, solving_device
from linprobe.runtime.distributed import Ranks, shared
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.fingerprint import Fingerprint
from linprobe.runtime.numbers import positive_number
from linprobe.runtime.text import layer_name

_COMPARED = 4  # layers to look at for one whose rows tell samples apart

Layers = Mapping[Any, Array | str | Path] | str | Path
Labels = Array | Sequence[int] | Sequence[str] | Sequence[bool]


@own_defaults()
def fit_probes(
    train: Layers,
    labels: Labels,
    test: tuple[Layers, Labels],
    *,
    groups: object = None,
    sample_weight: object = None,
    num_classes: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    memory_bytes: float | None = None,
    method: ProbeConfig | None = None,
    evaluation: EvaluationOptions | None = None,
    strict: bool = False,
    out: str | Path | RunFolder | None = None,
    progress: Progress = None,
    distribute: Distribute = "layers",
    **deprecated: Any,
) -> ProbeReport:
    """Fit a certified linear probe to features that are at hand, layer by layer.

    Args:
        train: layer, by name or number, to (n_train, n_features): tensors, arrays, memory-mapped
            arrays, or paths of ``.npy`` files; or data frames, lists of rows, arrays of other
            libraries. Or the path of a ``.safetensors`` file that holds all layers. One layer is
            copied to memory at a time; of narrow layers, as many as there are threads. A layer
            that is larger than `memory_bytes` is streamed instead: read block by block, each time
            that all of its rows are needed.
        labels: (n_train,) classes: whole numbers, text or truth values, in a tensor, an array, a
            pandas Series or a list. They are numbered in sorted order, as `Probe.classes` says.
        test: the same layers of the test samples, as those of training, and their labels.
        groups: as in `probe`.
        sample_weight: as in `probe`.
        num_classes: K, of labels that are class numbers from 0 on; None: as many as occur.
        seed: as in `probe`.
        device: where probes are solved; the CPU instead of one without float64, as a note says.
        memory_bytes: for the features held at a time, and with those that are streamed for their
            logits, 28 bytes for each class and row; None: 40 % of the free memory.
        method: as in `probe`.
        evaluation: as in `probe`; no controls that start from a network or its inputs.
        strict: raise when a layer fails, instead of going on with the others.
        out: as in `probe`.
        progress: as in `probe`.
        distribute: "layers" or None, as in `probe`; or "rows": each process of torchrun, SLURM or
            an initialised process group gives some of the rows, of training and of test, with
            their labels, groups and weights, in the same layers; none is enough. Features are
            never gathered, and all get the same report. Its rows are those of the first process,
            then those of the second, and so on. An error ends the call in all.
        **deprecated: options by their old keywords, for this release.

    Raises:
        LinprobeError: Anything that can't be used; the message names the layer.
    """
    started = time.perf_counter()
    options = grouped_options(
        "fit_probes",
        deprecated,
        {"method": (method, ProbeConfig), "evaluation": (evaluation, EvaluationOptions)},
    )
    if memory_bytes is not None:
        expected = "a positive number of bytes, or None"
        memory_bytes = positive_number("memory_bytes", memory_bytes, expected)
    check_distribute(distribute, ("layers", "rows"))
    folder = run_folder(out)
    with ExitStack() as stack:
        kept_in = None if folder is None else folder.path
        ranks = stack.enter_context(shared(distribute is not None, kept_in))
        rows = SharedRows(ranks) if distribute == "rows" and ranks.size > 1 else None
        given = _read((train, labels), test, (groups, sample_weight), rows)
        task = make_task(
            *(given.train_labels, given.test_labels),
            groups=given.groups,
            config=options["method"],
            evaluation=options["evaluation"],
            seed=seed,
            num_classes=num_classes,
            names=given.names,
            sample_weight=given.sample_weight,
        )
        _check_controls(task.evaluation)
        solved_on, notes = solving_device(find_device(device))
        if rows is None:
            notes = (*notes, *_copies(given.layers))
            # The online code sends rows in random order.
            if any_streamed(given.layers, solved_on, memory_bytes) and not task.evaluation.mdl:
                task = task.rising()
        task = own = with_plan(replace(task, notes=(*task.notes, *notes), strict=strict))
        if rows is not None:
            own = rows.own_part(task, *given.counts)
        source = ArrayLayers(
            *(given.layers, own.permutation, solved_on, memory_bytes),
            one_by_one=rows is not None,  # all processes are to take the same steps
            num_classes=task.targets.num_classes,
        )
        if folder is not None or ranks.size > 1:
            hashed = _fingerprint(task, given.layers, str(solved_on), ranks, rows is not None)
        if folder is not None:
            stack.enter_context(folder.locked(ranks))
            if (kept := folder.open(hashed, task.test_labels, ranks)) is not None:
                return kept
        show = ranks.watched(stack.enter_context(progress_shown(progress, ranks)))
        meter = single_meter(show, source.num_features, task)
        probed = probe_layers(source, own, meter, folder, ranks)
        asked = ExtractionRecord(
            groups=groups is not None,
            sample_weight=sample_weight is not None,
            memory_bytes=memory_bytes,
        )
        origin = ("arrays", asked, str(solved_on), started)
        controls, _ = controls_of_task(task)
        report = make_report(task, probed, *origin, controls)
        return report if folder is None else folder.finish(report, ranks)


@dataclass(frozen=True)
class _Given:
    """What a call was given, checked.

    Attributes:
        layers: to the features of both splits that are here.
        counts: of the training and the test rows that are here.
        train_labels: (n_train,) int64, of all processes that share the rows.
        test_labels: (n_test,) int64, of all.
        names: of labels that aren't simply numbers, train and test.
        groups: (n_train,) int64, of all.
        sample_weight: (n_train,) float64, of all.
    """

    layers: dict[str, tuple[Array, Array]]
    counts: tuple[int, int]
    train_labels: Tensor
    test_labels: Tensor
    names: tuple[Names, Names]
    groups: Tensor | None
    sample_weight: Tensor | None


def _read(
    train: tuple[Layers, Labels],
    test: tuple[Layers, Labels],
    groups_and_weight: tuple[object, object],
    rows: SharedRows | None,
) -> _Given:
    """Read features and labels, and what goes with the training rows."""
    named, test_features, test_labels = _check_features(train[0], test)
    y, names = _labels(train[1], "train", rows)
    yt, test_names = _labels(test_labels, "test", rows)
    groups, weight = groups_and_weight
    opened = {
        name: (_open(named[name], name, "train"), _open(test_features[name], name, "test"))
        for name in named
    }
    counts = len(y), len(yt)
    _check_arrays(opened, counts)
    if rows is not None:
        rows.check_dtypes(opened)
        y, names = rows.of_all(y, names, "train")
        yt, test_names = rows.of_all(yt, test_names, "test")
        groups = rows.array_of_all(groups, "groups")
        weight = rows.array_of_all(weight, "sample_weight")
    return _Given(
        *(opened, counts, y, yt, (names, test_names)),
        groups=read_groups(groups, len(y), len(yt)),
        sample_weight=read_weights(weight, len(y)),
    )


def _fingerprint(
    task: Task, layers: Mapping[str, object], device: str, ranks: Ranks, shares_rows: bool
) -> str:
    """Hash the call, once all processes are known to make it."""
    hashed, data = Fingerprint(), Fingerprint()
    hashed.add(*hashed_settings(task), None if shares_rows else layers, device)
    ranks.same(hashed.text, DIFFERENT)
    if shares_rows:
        data.add(layers)
        hashed.add(ranks.gathered(data.text))
    return hashed.text


def _copies(opened: Mapping[str, tuple[Array, Array]]) -> Iterator[str]:
    """Say whether test rows are training rows, by a layer whose rows tell samples apart."""
    found: list[tuple[float, str, np.ndarray]] = []
    for name, (train, _) in islice(opened.items(), _COMPARED):
        hashes = feature_hashes(train)
        found.append((repeats(hashes), name, hashes))
        if found[-1][0] <= RARE:
            break
    _, name, hashes = min(found, key=lambda layer: layer[0])
    yield from copies_note(hashes, feature_hashes(opened[name][1]), f"features of layer {name!r}")


def _check_controls(evaluation: EvaluationOptions) -> None:
    for name in evaluation.controls:
        if name in OF_NETWORKS:
            raise LinprobeError(
                f"control {name!r} starts from a network, and only its features are given here; "
                "expected other controls, or linprobe.probe"
            )


def _check_features(train: object, test: object) -> tuple[dict[str, Any], dict[str, Any], Any]:
    if not isinstance(test, tuple | list) or len(test) != 2:
        raise LinprobeError("test is no pair; expected ({layer: features}, labels)")
    train, features, labels = _layers(train), _layers(test[0]), test[1]
    if not isinstance(features, Mapping):
        raise LinprobeError("test is no pair; expected ({layer: features}, labels)")
    if not isinstance(train, Mapping) or not train:
        raise LinprobeError("there are no layers; expected a dict of layer to features")
    train, features = _named(train, "train"), _named(features, "test")
    odd = sorted(set(train) ^ set(features))
    if odd:
        raise LinprobeError(
            f"layer {odd[0]!r} stands in one split only; expected the same layers in both"
        )
    return train, features, labels


def _layers(features: object) -> object:
    """Open a file of all layers."""
    return safetensors_rows(features) if isinstance(features, str | Path) else features


def _named(features: Mapping[Any, Any], split: str) -> dict[str, Any]:
    """The same layers by names that are text."""
    named: dict[str, Any] = {}
    for key, value in features.items():
        if (name := layer_name(key)) in named:
            raise LinprobeError(
                f"two layers of the {split} features are called {name!r}, {key!r} for one; "
                "expected names that differ as text"
            )
        named[name] = value
    return named


def _labels(labels: object, split: str, rows: SharedRows | None) -> tuple[Tensor, Names]:
    values, names = read_labels(labels, split)
    if values.ndim != 1 or (rows is None and not len(values)):
        raise LinprobeError(
            f"{split} labels have shape {tuple(values.shape)}; expected one class for each "
            "sample, and at least one sample: of one-hot rows take argmax(1), and flatten a column"
        )
    return values, names


def _open(features: Any, layer: object, split: str) -> Array:
    if isinstance(features, str | Path):
        mapped = map_npy(features)
        return file_rows(mapped) or mapped
    if isinstance(features, FileRows):
        return features
    array: Any = as_rows(features, f"layer {layer!r}: the array of {split} features")
    found: Array = file_rows(array) or array
    return found


def _check_arrays(opened: Mapping[str, tuple[Array, Array]], counts: tuple[int, int]) -> None:
    for name, (train, test) in opened.items():
        _check_array(name, "train", train, counts[0])
        _check_array(name, "test", test, counts[1])


def _check_array(name: str, split: str, features: Array, count: int) -> None:
    if features.ndim != 2:
        raise LinprobeError(
            f"layer {name!r}: {split} features are a {type(features).__name__} of shape "
            f"{tuple(features.shape)}; expected an array (n_samples, n_features): "
            "flatten or pool each sample"
        )
    if not _is_real(features):
        raise LinprobeError(
            f"layer {name!r}: {split} features have dtype {features.dtype}; expected real numbers"
        )
    if len(features) != count:
        raise LinprobeError(
            f"layer {name!r}: {len(features):,} rows of {split} features for {count:,} labels; "
            "expected as many"
        )


def _is_real(features: Array) -> bool:
    if isinstance(features, Tensor | FileRows):
        return not features.dtype.is_complex
    return features.dtype.kind in "biuf"
