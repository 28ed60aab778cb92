"""Read and check what a call of `fit_probes` or `fit_label_sets` is given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from linprobe.core.features import FileRows, file_rows, safetensors_rows
from linprobe.data.containers import as_rows
from linprobe.data.labels import Names, read_labels
from linprobe.data.npy import map_npy
from linprobe.data.splits import read_groups, read_weights
from linprobe.pipeline.array_layers import Array
from linprobe.pipeline.label_sets import LabelSet, naming_set
from linprobe.pipeline.shared_rows import SharedRows
from linprobe.pipeline.task import SetName
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.text import layer_name

Layers = Mapping[Any, Array | str | Path] | str | Path
Labels = Array | Sequence[int] | Sequence[str] | Sequence[bool]


@dataclass(frozen=True)
class Given:
    """Arguments of a call, read and checked.

    Attributes:
        layers: to the features of both splits that are here.
        counts: of the training and the test rows that are here.
        label_sets: by name, (n_train,) and (n_test,), of all processes that share the rows.
        groups: (n_train,) int64, of all.
        sample_weight: (n_train,) float64, of all.
    """

    layers: dict[str, tuple[Array, Array]]
    counts: tuple[int, int]
    label_sets: dict[SetName, LabelSet]
    groups: Tensor | None
    sample_weight: Tensor | None


def read_given(
    train: Layers,
    label_sets: Mapping[SetName, object],
    test: object,
    groups: object,
    sample_weight: object,
    rows: SharedRows | None,
) -> Given:
    """Read features and labels, and what goes with the training rows.

    Args:
        train: as `fit_probes` takes it.
        label_sets: training labels by name; None is the name of a single one.
        test: features, and labels, of a single set or by the same names.
        groups: as `fit_probes` takes it.
        sample_weight: as `fit_probes` takes it.
        rows: those of this process among all; None: they are all.

    Raises:
        LinprobeError: Anything that can't be used.
    """
    named, test_features, of_test = _check_features(train, test)
    test_labels: Mapping[Any, object] = {None: of_test}
    if None not in label_sets:
        test_labels = _same_sets(label_sets, of_test)
    found: dict[SetName, LabelSet] = {}
    for name, labels in label_sets.items():
        with naming_set(name):
            y, names = _labels(labels, "train", rows)
            yt, test_names = _labels(test_labels[name], "test", rows)
            found[name] = LabelSet(y, yt, (names, test_names))
    counts = _same_counts(found)
    opened = {
        name: (_open(named[name], name, "train"), _open(test_features[name], name, "test"))
        for name in named
    }
    _check_arrays(opened, counts)
    if rows is not None:
        rows.check_dtypes(opened)
        found = {name: _of_all(labels, rows) for name, labels in found.items()}
        groups = rows.array_of_all(groups, "groups")
        sample_weight = rows.array_of_all(sample_weight, "sample_weight")
    of_all = next(iter(found.values()))
    return Given(
        *(opened, counts, found),
        groups=read_groups(groups, len(of_all.train), len(of_all.test)),
        sample_weight=read_weights(sample_weight, len(of_all.train)),
    )


def _same_sets(label_sets: Mapping[SetName, object], test: object) -> Mapping[Any, object]:
    """Check that the test labels are those of the same label sets."""
    if not isinstance(test, Mapping):
        raise LinprobeError(
            f"the test labels are a {type(test).__name__}; expected a dict of the same "
            f"{len(label_sets)} label sets as those of training"
        )
    if odd := [name for name in (*label_sets, *test) if (name in label_sets) != (name in test)]:
        raise LinprobeError(
            f"label set {odd[0]!r} stands in one split only; expected the same sets in both"
        )
    return test


def _same_counts(label_sets: Mapping[SetName, LabelSet]) -> tuple[int, int]:
    """Count the rows, of which all label sets have as many."""
    counts = {name: (len(labels.train), len(labels.test)) for name, labels in label_sets.items()}
    first, *others = counts
    for name in others:
        for split, own, expected in zip(
            ("train", "test"), counts[name], counts[first], strict=True
        ):
            if own != expected:
                raise LinprobeError(
                    f"label set {name!r} has {own:,} {split} labels, {first!r} {expected:,}; "
                    "expected one for each row of the features in every set"
                )
    return counts[first]


def _of_all(labels: LabelSet, rows: SharedRows) -> LabelSet:
    train, names = rows.of_all(labels.train, labels.names[0], "train")
    test, test_names = rows.of_all(labels.test, labels.names[1], "test")
    return LabelSet(train, test, (names, test_names))


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
