"""Which mask counts the tokens of a layer, and how it is brought to their number."""

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from linprobe.data.batches import MASK_KEY, Batch

_LENGTHS = "_get_feat_extract_output_lengths"  # of transformers' speech networks

_OPTIONS: tuple[dict[str, bool], ...] = ({}, {"add_adapter": False})


def mask_of(batch: Batch, origin: str | None) -> str | None:
    """Find the mask of tokens that come from one of the network's inputs.

    Args:
        batch: with its masks.
        origin: name of the input; None: not known.

    Returns:
        The mask's name; None: all of these tokens count.
    """
    if origin is None or origin in batch.masks or origin not in batch.inputs:
        return MASK_KEY if MASK_KEY in batch.masks else None
    fitting = [name for name in batch.masks if origin.startswith(name.removesuffix(MASK_KEY))]
    if origin.startswith("decoder_"):  # has its own, or none
        fitting = [name for name in fitting if name.startswith("decoder_")]
    name = max(fitting, key=len, default=None)
    shape = batch.inputs[origin].shape
    if name is None or batch.masks[name].ndim != 2:
        return name
    # Signals and their spectrograms, words and their embeddings; pictures have more dimensions.
    counts = len(shape) <= 3 and batch.masks[name].shape[1] in shape[1:]
    return name if counts else None


def is_signal(batch: Batch, origin: str | None) -> bool:
    """Tell whether an input is a signal: a network makes fewer tokens than it has values."""
    given = None if origin is None else batch.inputs.get(origin)
    return given is not None and given.is_floating_point() and "embed" not in str(origin)


def fitted_mask(network: nn.Module, mask: Tensor, num_tokens: int) -> Tensor:
    """Bring a mask to a number of tokens, by the network's own rule or in proportion.

    Args:
        network: may have a rule, as the speech networks of transformers do.
        mask: (n_samples, n_given) bool.
        num_tokens: of the layer.

    Returns:
        (n_samples, num_tokens) bool; of a sample with anything to keep one token at least.
    """
    given = mask.shape[1]
    if given == num_tokens:
        return mask
    lengths = mask.sum(1)
    ends_in_padding = torch.equal(mask, torch.arange(given, device=mask.device) < lengths[:, None])
    own = _own_lengths(network, lengths, given, num_tokens) if ends_in_padding else None
    places = torch.arange(num_tokens, device=mask.device)
    if own is not None:
        return places < own[:, None]
    fitted = mask[:, ((places + 0.5) * given / num_tokens).long()]
    lost = mask.any(1) & ~fitted.any(1)
    if lost.any():
        first = mask[lost].int().argmax(1) * num_tokens // given
        fitted[lost.nonzero()[:, 0], first] = True
    return fitted


def _own_lengths(network: nn.Module, lengths: Tensor, given: int, num_tokens: int) -> Tensor | None:
    """Numbers of tokens that the network makes of signals; None: it has no rule for this layer."""
    whole = torch.tensor([given], device=lengths.device)
    for module in network.modules():
        rule: Any = getattr(module, _LENGTHS, None)
        for options in _OPTIONS if rule is not None else ():
            with suppress(TypeError):  # not all have an adapter
                if int(rule(whole, **options)) == num_tokens:
                    own: Tensor = rule(lengths, **options).long().clamp(min=0)
                    return torch.where(lengths > 0, own.clamp(min=1), own)
    return None
