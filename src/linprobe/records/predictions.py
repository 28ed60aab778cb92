"""Predictions of each probe of a checkpoint on the test split, by which probes can be compared.

One file a checkpoint, ``RUN/predictions/CHECKPOINT.safetensors``, with ``labels`` (n_test,) and
``LAYER.predicted`` (n_test,), both in the smallest of uint8, int16, int32 and int64 that holds all
class numbers, ``LAYER.own_log_probability`` (n_test,) float32: the logarithm (nats) of the
probability that the probe gives to each sample's own label, and ``LAYER.deviations.METRIC``
float32, the deviations of each metric (`linprobe.evaluation.resampling`), which the paired test of
layers takes. The names of the classes, by number, stand in the metadata as JSON under ``classes``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.files import one_name
from linprobe.runtime.tensors import read_tensors, write_tensors

FOLDER = "predictions"

_WHOLE = (torch.uint8, torch.int16, torch.int32, torch.int64)
_PREDICTED, _LOG_PROBABILITY, _DEVIATIONS = ".predicted", ".own_log_probability", ".deviations."


@dataclass(frozen=True)
class Predictions:
    """Predictions of one probe on the test split.

    Attributes:
        predicted: (n_test,) int64, most probable classes.
        own_log_probability: (n_test,) float32, nats; minus infinity for a label whose class has
            no training sample.
        deviations: float32 vectors by metric.
    """

    predicted: Tensor
    own_log_probability: Tensor
    deviations: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        logits: Tensor,
        labels: Tensor,
        deviations: Mapping[str, NDArray[np.float64]] | None = None,
    ) -> "Predictions":
        """Take logits (n_classes, n_test), labels (n_test,) int64, deviations; keep on the CPU."""
        own = logits.log_softmax(0).gather(0, labels[None])[0]
        kept = {k: torch.from_numpy(v).float() for k, v in (deviations or {}).items()}
        return cls(logits.argmax(0).cpu(), own.float().cpu(), kept)


def save_predictions(
    run: Path,
    checkpoint: str,
    labels: Tensor,
    layers: Mapping[str, Predictions],
    classes: Sequence[str] = (),
) -> Path:
    """Write one checkpoint's predictions below the folder of its run; return the file."""
    largest = max([int(labels.max()), *(int(p.predicted.max()) for p in layers.values())])
    dtype = next(kind for kind in _WHOLE if largest <= torch.iinfo(kind).max)
    tensors = {"labels": labels.cpu().to(dtype)}
    for layer, predictions in layers.items():
        tensors[layer + _PREDICTED] = predictions.predicted.to(dtype)
        tensors[layer + _LOG_PROBABILITY] = predictions.own_log_probability.contiguous()
        for metric, values in predictions.deviations.items():
            tensors[layer + _DEVIATIONS + metric] = values
    path = _path(run, checkpoint)
    write_tensors(path, tensors, {"classes": json.dumps(classes)} if classes else None)
    return path


def load_predictions(run: Path, checkpoint: str) -> tuple[Tensor, dict[str, Predictions]]:
    """Read what `save_predictions` wrote: labels (n_test,) int64, and predictions by layer.

    Raises:
        LinprobeError: No such file, or a damaged one.
    """
    path = _path(Path(run), checkpoint)
    cure = "expected predictions of a run: make the run again"
    tensors, _ = read_tensors(path, cure)
    names = [name.removesuffix(_PREDICTED) for name in tensors if name.endswith(_PREDICTED)]
    deviations: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for key, values in tensors.items():
        name, found, metric = key.rpartition(_DEVIATIONS)
        if found and name in deviations:
            deviations[name][metric] = values
    try:
        return tensors["labels"].long(), {
            name: Predictions(
                *(tensors[name + _PREDICTED].long(), tensors[name + _LOG_PROBABILITY]),
                deviations[name],
            )
            for name in names
        }
    except KeyError as error:
        raise LinprobeError(f"{path} lacks {error}; make the run again") from error


def _path(run: Path, checkpoint: str) -> Path:
    return run / FOLDER / f"{one_name(checkpoint)}.safetensors"
