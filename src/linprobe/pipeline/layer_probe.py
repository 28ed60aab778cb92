"""The probe of one layer: its record, its weights, and how to apply it elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from linprobe.activations.rules import Reduction
from linprobe.pipeline.export import CentredLinear, holds, plain_linear
from linprobe.records.evidence import ControlRecord
from linprobe.records.predictions import Predictions, load_predictions, save_predictions
from linprobe.records.schema import ProbeRecord
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.files import one_name
from linprobe.runtime.tensors import read_tensors, write_tensors

TENSORS = ("weight", "bias", "columns", "mean", "scale")
"""Attributes of a `Probe` that are saved, as ``LAYER.weight`` and so on."""

_PROBES = "probes"


@dataclass(frozen=True, eq=False)
class Probe:
    """The probe of one layer.

    Attributes:
        record: its numbers.
        weight: (n_classes, n_features) float64 on raw features; None: the probe failed.
        bias: (n_classes,) float64; minus infinity for a class without training samples.
        columns: coordinates that a random reducer keeps, int64.
        predictions: on the test split; None: not known.
        controls: what the layer is compared with.
        mean: (n_features,) float64 of the training features; None: not known.
        scale: what centred features are multiplied by where the penalty is stated, one number or
            (n_features,), float64; None: not known.
        classes: names of the K classes, in the order of the rows of `weight`.
    """

    record: ProbeRecord
    weight: Tensor | None
    bias: Tensor | None
    columns: Tensor | None = None
    predictions: Predictions | None = None
    controls: tuple[ControlRecord, ...] = ()
    mean: Tensor | None = None
    scale: Tensor | None = None
    classes: tuple[str, ...] = ()

    @property
    def reduction(self) -> Reduction:
        """The rule that turns the layer's activation into features."""
        return Reduction.parse(self.record.reducer)

    def linear(
        self, dtype: torch.dtype = torch.float32, *, check: Tensor | None = None
    ) -> nn.Linear:
        """Make the probe a plain module, from raw features (n, n_features) to logits.

        Args:
            dtype: of its parameters.
            check: (n_test, n_features), the raw test features in the order of the test data, on
                which the module is to predict what the probe did.

        Raises:
            LinprobeError: The probe failed; or the module would predict otherwise than the probe
                for more than one in a thousand test samples, as far as that is known: `module`
                centres the features first.
        """
        weight, bias = self._parameters()
        linear = plain_linear(weight, bias, dtype)
        changes, total = self.record.float32_changes, self._num_predictions
        if dtype == torch.float32 and check is None and changes and _too_many(changes, total):
            raise LinprobeError(
                f"layer {self.record.layer!r}: a float32 nn.Linear on raw features predicts "
                f"{changes} of {total or 'the'} test samples otherwise than the probe; expected "
                "the same: use module(), which centres the features, or linear(torch.float64)"
            )
        self._check(linear, dtype, check)
        return linear

    def module(
        self, dtype: torch.dtype = torch.float32, *, check: Tensor | None = None
    ) -> CentredLinear:
        """Make the probe a module that centres and scales raw features before it multiplies.

        Args:
            dtype: of its parameters.
            check: as `linear` takes it.

        Raises:
            LinprobeError: As `linear`; or a probe that was saved without the mean.
        """
        weight, bias = self._parameters()
        if self.mean is None or self.scale is None:
            raise LinprobeError(
                f"layer {self.record.layer!r}: the probe was saved without the features' mean; "
                "expected one of this version: probe again, or use linear(torch.float64)"
            )
        module = CentredLinear(weight, bias, self.mean, self.scale.expand_as(self.mean), dtype)
        self._check(module, dtype, check)
        return module

    def _parameters(self) -> tuple[Tensor, Tensor]:
        if self.weight is None or self.bias is None:
            raise LinprobeError(
                f"layer {self.record.layer!r} has no probe ({self.record.status}); expected a "
                "layer whose probe was fitted"
            )
        return self.weight, self.bias

    @property
    def _num_predictions(self) -> int:
        return 0 if self.predictions is None else len(self.predictions.predicted)

    def _check(self, module: nn.Module, dtype: torch.dtype, features: Tensor | None) -> None:
        layer, total = self.record.layer, self._num_predictions
        if not holds(module):
            raise LinprobeError(
                f"layer {layer!r}: the probe's numbers are too large for {dtype}; expected a "
                "wider dtype: use torch.float64"
            )
        if features is None:
            return
        if self.predictions is None or len(features) != total:
            raise LinprobeError(
                f"layer {layer!r}: {len(features)} samples to check and {total} kept predictions; "
                "expected the features of the test data, in its order"
            )
        with torch.no_grad():
            predicted = module(features.to(dtype) if isinstance(module, nn.Linear) else features)
        changes = int((predicted.argmax(1).cpu() != self.predictions.predicted).sum())
        if _too_many(changes, total):
            raise LinprobeError(
                f"layer {layer!r}: the {type(module).__name__} in {dtype} predicts {changes} of "
                f"{total} test samples otherwise than the probe; expected the same: use module(), "
                "torch.float64, or the features that the probe was tested on"
            )

    def features(self, activation: Tensor, mask: Tensor | None = None) -> Tensor:
        """Turn new activations of the layer into features, as was done for this probe.

        Args:
            activation: (n_samples, ...), the layer's output.
            mask: (n_samples, n_tokens), the attention mask.

        Returns:
            (n_rows, n_features).

        Raises:
            LinprobeError: Another shape than the layer's.
        """
        features = self.reduction.apply(activation, mask=mask, columns=self.columns)
        if features.shape[1] != self.record.num_features:
            raise LinprobeError(
                f"layer {self.record.layer!r}: an activation of shape {tuple(activation.shape)} "
                f"gives {features.shape[1]} features, the probe takes "
                f"{self.record.num_features}; expected what the layer gave when it was probed"
            )
        return features


def _too_many(changes: int, total: int) -> bool:
    """Tell whether more predictions change than samples that stand on the boundary."""
    return 1000 * changes > total


def save_probes(
    folder: Path, checkpoint: str, probes: Mapping[str, Probe], test_labels: Tensor | None
) -> None:
    """Write weights and predictions of a checkpoint's probes below the folder of its run."""
    tensors: dict[str, Tensor] = {}
    for layer, probe in probes.items():
        parts = {name: getattr(probe, name) for name in TENSORS}
        tensors |= {f"{layer}.{k}": v for k, v in parts.items() if v is not None}
    write_tensors(_path(folder, checkpoint), tensors)
    known = {k: p.predictions for k, p in probes.items() if p.predictions is not None}
    if test_labels is not None and known:
        classes = next(iter(probes.values())).classes
        save_predictions(folder, checkpoint, test_labels, known, classes)


def load_probe(
    folder: Path, checkpoint: str, record: ProbeRecord, controls: tuple[ControlRecord, ...]
) -> Probe:
    """Read one probe of what `save_probes` wrote; raise `LinprobeError` where that is damaged."""
    tensors = load_probe_tensors(folder, checkpoint)
    predictions: dict[str, Predictions] = {}
    if record.evaluation is not None:
        _, predictions = load_predictions(folder, checkpoint)
    return make_probe(record, tensors, predictions, controls)


def make_probe(
    record: ProbeRecord,
    tensors: Mapping[str, Tensor],
    predictions: Mapping[str, Predictions],
    controls: tuple[ControlRecord, ...],
) -> Probe:
    """Put a probe together that was read; raise `LinprobeError` where its weight is missing."""
    layer = record.layer
    found: dict[str, Any] = {name: tensors.get(f"{layer}.{name}") for name in TENSORS}
    if found["weight"] is None and record.reason is None:
        raise LinprobeError(
            f"the file of the run's probes has no {layer + '.weight'!r}; save the report again"
        )
    return Probe(record, predictions=predictions.get(layer), controls=controls, **found)


def load_probe_tensors(folder: Path, checkpoint: str) -> dict[str, Tensor]:
    """Read the weights that `save_probes` wrote, by ``LAYER.weight`` and so on.

    Raises:
        LinprobeError: No such file, or a damaged one.
    """
    return read_tensors(_path(folder, checkpoint), "save the report again")[0]


def _path(folder: Path, checkpoint: str) -> Path:
    return folder / _PROBES / f"{one_name(checkpoint)}.safetensors"
