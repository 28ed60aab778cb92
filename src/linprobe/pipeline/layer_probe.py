"""The probe of one layer: its record, its weights, and how to apply it elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from linprobe.activations.rules import Reduction
from linprobe.records.evidence import ControlRecord
from linprobe.records.predictions import Predictions, save_predictions
from linprobe.records.schema import ProbeRecord
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.files import atomic_write

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
    """

    record: ProbeRecord
    weight: Tensor | None
    bias: Tensor | None
    columns: Tensor | None = None
    predictions: Predictions | None = None
    controls: tuple[ControlRecord, ...] = ()

    @property
    def reduction(self) -> Reduction:
        """The rule that turns the layer's activation into features."""
        return Reduction.parse(self.record.reducer)

    def linear(self, dtype: torch.dtype = torch.float32) -> nn.Linear:
        """Make the probe a module, from features (n, n_features) to logits (n, n_classes).

        Raises:
            LinprobeError: The probe failed.
        """
        if self.weight is None or self.bias is None:
            raise LinprobeError(
                f"layer {self.record.layer!r} has no probe ({self.record.status}); expected a "
                "layer whose probe was fitted"
            )
        # Without storage at first: initial values would be drawn from the global generator.
        num_classes, num_features = self.weight.shape
        linear = nn.Linear(num_features, num_classes, dtype=dtype, device="meta")
        linear = linear.to_empty(device="cpu")
        with torch.no_grad():
            linear.weight.copy_(self.weight)
            linear.bias.copy_(self.bias)
        return linear

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


def save_probes(
    folder: Path, checkpoint: str, probes: Mapping[str, Probe], test_labels: Tensor | None
) -> None:
    """Write weights and predictions of a checkpoint's probes below the folder of its run."""
    tensors: dict[str, Tensor] = {}
    for layer, probe in probes.items():
        parts = {"weight": probe.weight, "bias": probe.bias, "columns": probe.columns}
        tensors |= {f"{layer}.{k}": v.contiguous() for k, v in parts.items() if v is not None}
    with atomic_write(_path(folder, checkpoint)) as temporary:
        save_file(tensors, temporary)
    known = {k: p.predictions for k, p in probes.items() if p.predictions is not None}
    if test_labels is not None and known:
        save_predictions(folder, checkpoint, test_labels, known)


def load_probe_tensors(folder: Path, checkpoint: str) -> dict[str, Tensor]:
    """Read the weights that `save_probes` wrote, by ``LAYER.weight`` and so on.

    Raises:
        LinprobeError: No such file, or a damaged one.
    """
    path = _path(folder, checkpoint)
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise LinprobeError(f"{path} can't be read ({error}); save the report again") from error
    return tensors


def _path(folder: Path, checkpoint: str) -> Path:
    return folder / _PROBES / f"{checkpoint}.safetensors"
