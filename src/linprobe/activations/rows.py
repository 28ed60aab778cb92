"""Rows of features from the tensors of a batch."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from linprobe.activations.masks import fitted_mask
from linprobe.activations.rules import ProbePoint, count_tokens
from linprobe.activations.taps import Consume
from linprobe.core.features import ScratchRows
from linprobe.data.batches import Batch
from linprobe.runtime.errors import LinprobeError


def keeper(
    network: nn.Module,
    features: Mapping[str, Tensor | ScratchRows],
    points: Mapping[str, ProbePoint],
    batch: Batch,
    rows: slice | Tensor,
) -> Consume:
    """Make what writes a tap's tensor to these rows of its features."""

    def keep(tap: str, tensor: Tensor) -> None:
        point, kept = points[tap], features[tap]
        if isinstance(kept, ScratchRows):
            kept.append(rows_of(network, point, tensor, batch))
            return
        # What is not as in the first batch gets its message from `rows_of`.
        fits = tensor.shape[:1] == (len(batch),) and not tensor.is_complex()
        fits = fits and tensor.numel() == len(batch) * point.num_features
        if isinstance(rows, slice) and point.is_plain and fits:
            # Straight into place: a flattened copy on the way would cost one more pass of memory.
            kept[rows].view(tensor.shape).copy_(tensor)
            return
        values = rows_of(network, point, tensor, batch).to(kept.device, kept.dtype)
        if isinstance(rows, slice):
            kept[rows] = values
        else:
            kept.index_copy_(0, rows, values)

    return keep


def check_plain(tap: str, tensor: Tensor) -> None:
    """Refuse tensors that have no rows of numbers."""
    if tensor.is_nested or tensor.layout != torch.strided:
        raise LinprobeError(
            f"layer {tap!r} gives a nested or sparse tensor; expected a plain one: use select, "
            "with torch.nested.to_padded_tensor say"
        )
    if tensor.is_meta:
        raise LinprobeError(
            f"layer {tap!r} gives a tensor on the device 'meta', without values; expected a "
            "network whose weights are loaded, or put in place by its hooks"
        )


def rows_of(network: nn.Module, point: ProbePoint, tensor: Tensor, batch: Batch) -> Tensor:
    """Turn a batch's tensor into rows; raises `LinprobeError` with the layer's name."""
    if tensor.ndim <= point.sample_dimension or tensor.shape[point.sample_dimension] != len(batch):
        raise LinprobeError(
            f"layer {point.layer!r} gives shape {tuple(tensor.shape)} for {len(batch)} samples; "
            f"expected them along dimension {point.sample_dimension}, as in the first batch: "
            "use select"
        )
    if point.sample_dimension:
        tensor = tensor.transpose(0, 1)
    rule = point.reduction
    labels = batch.labels if rule.tokens == "all" else None
    # Labels of tokens tell with the mask of their own length which tokens are rows.
    mask = batch.mask if labels is not None else batch.masks.get(point.mask or "")
    if mask is not None and labels is not None and mask.shape != labels.shape:
        mask = None
    try:
        if mask is not None and point.is_scaled:
            num_tokens = count_tokens(rule.layout, tensor.shape[1:])
            mask = fitted_mask(network, mask, num_tokens or 0)
        rows = rule.apply(tensor, mask=mask, labels=labels, columns=point.columns)
    except LinprobeError as error:
        raise LinprobeError(f"layer {point.layer!r}: {error}") from error
    if rows.shape[1] != point.num_features:
        raise LinprobeError(
            f"layer {point.layer!r} gives {rows.shape[1]} features, but {point.num_features} in "
            "the first batch; expected as many for every sample: pool it, reduce='mean', or use "
            "select"
        )
    return rows
