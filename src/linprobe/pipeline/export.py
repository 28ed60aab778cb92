"""Probes as modules of PyTorch.

Folded into one weight and bias for raw features, a probe subtracts two large numbers wherever the
features' mean is large beside what varies: float64 does it, float32 may not. A module that centres
first has nothing to cancel.
"""

import torch
from torch import Tensor, nn

from linprobe.core.features import FeatureMatrix, as_features

_ROWS = 4096


class CentredLinear(nn.Module):
    """Logits (n, n_classes) of raw features (n, n_features): ``linear((x - mean) * scale)``.

    Args:
        weight: (n_classes, n_features) float64 on raw features.
        bias: (n_classes,) float64.
        mean: (n_features,) float64.
        scale: (n_features,) float64; 0 for columns that count for nothing.
        dtype: of the parameters and of the logits.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean.to(dtype))
        self.register_buffer("scale", scale.to(dtype))
        centred = torch.where(scale > 0, weight / scale, 0.0)
        # What the mean loses by rounding is made up for by the bias.
        self.linear = plain_linear(centred, bias + weight @ self.mean.double(), dtype)

    def forward(self, features: Tensor) -> Tensor:
        """Apply the probe to raw features of any floating dtype."""
        logits: Tensor = self.linear(((features - self.mean) * self.scale).to(self.mean.dtype))
        return logits


def plain_linear(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> nn.Linear:
    """Make a module of a weight (n_classes, n_features) and bias, on the CPU."""
    # Without storage at first: initial values would be drawn from the global generator.
    num_classes, num_features = weight.shape
    linear = nn.Linear(num_features, num_classes, dtype=dtype, device="meta")
    linear = linear.to_empty(device="cpu")
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)
    return linear


def holds(module: nn.Module) -> bool:
    """Tell whether the module's dtype holds its numbers; a bias may be minus infinity."""
    biases = {name for name, _ in module.named_parameters() if name.endswith("bias")}
    return all(
        not bool(value.isnan().any() | value.isposinf().any())
        and (name in biases or bool(value.isfinite().all()))
        for name, value in module.state_dict().items()
    )


def float32_changes(
    weight: Tensor,
    bias: Tensor,
    features: Tensor | FeatureMatrix,
    logits: Tensor,
    offset: Tensor | None = None,
) -> int:
    """Count the predictions that a weight and bias of raw features give otherwise in float32.

    Args:
        weight: (n_classes, n_features) float64.
        bias: (n_classes,) float64.
        features: (n_samples, n_features), raw but for `offset`.
        logits: (n_classes, n_samples) float64, of the probe.
        offset: (n_features,) float64 that was subtracted from the features.
    """
    weight, bias, changes = weight.float(), bias.float(), 0
    for where, x in as_features(features).parts(_ROWS):
        raw = x.float() if offset is None else (x + offset).float()
        changes += int(((raw @ weight.T + bias).argmax(1) != logits[:, where].argmax(0)).sum())
    return changes
