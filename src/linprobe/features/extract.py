"""Features of any taps over a whole data split, in one forward pass a batch."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from linprobe.errors import LinprobeError
from linprobe.taps import Taps


def extract_features(
    network: nn.Module,
    inputs: Tensor,
    taps: Sequence[str],
    *,
    batch_size: int = 500,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """Run `network` over `inputs` and collect the flattened features of each tap.

    Args:
        network: on `device`; left as it was.
        inputs: (n_samples, ...), moved to `device` a batch at a time.
        taps: as `linprobe.taps` writes them.
        batch_size: samples in one forward pass.
        device: where the network runs and the features are kept.

    Returns:
        Tap to (n_samples, n_features) float32; row i belongs to ``inputs[i]``.

    Raises:
        LinprobeError: No inputs, an unknown tap, or a tap without a row for each sample.
    """
    if len(inputs) == 0:
        raise LinprobeError("there are no inputs to extract features from; expected at least one")
    capture = Taps(network, taps)
    out: dict[str, Tensor] = {}
    for start in range(0, len(inputs), batch_size):
        batch = inputs[start : start + batch_size].to(device)
        for tap, captured in capture(batch).items():
            if captured.shape[:1] != batch.shape[:1]:
                raise LinprobeError(
                    f"tap {tap!r} gives shape {tuple(captured.shape)} for {len(batch)} samples; "
                    "expected the samples along the first dimension"
                )
            rows = captured.flatten(1) if captured.ndim > 1 else captured[:, None]
            if tap not in out:
                out[tap] = torch.empty(len(inputs), rows.shape[1], device=device)
            out[tap][start : start + len(batch)] = rows
    return out


def feature_widths(network: nn.Module, example: Tensor, taps: Sequence[str]) -> dict[str, int]:
    """Number of features of each tap, from one example input (1, ...)."""
    captured = Taps(network, taps)(example)
    return {tap: value[0].numel() for tap, value in captured.items()}


def plan_groups(
    widths: Mapping[str, int], num_rows: int, budget_bytes: float
) -> list[tuple[str, ...]]:
    """Split taps, in order, into groups whose float32 features fit the budget together.

    Args:
        widths: tap to its number of features.
        num_rows: samples whose features are held at a time.
        budget_bytes: a tap that is larger by itself is a group of its own.
    """
    groups: list[list[str]] = []
    used = 0.0
    for tap, width in widths.items():
        size = 4.0 * width * num_rows
        if not groups or used + size > budget_bytes:
            groups.append([])
            used = 0.0
        groups[-1].append(tap)
        used += size
    return [tuple(group) for group in groups]
