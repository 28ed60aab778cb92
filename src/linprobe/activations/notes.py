"""Sentences of a report about how layers were read."""

from collections.abc import Iterator, Mapping, Sequence

from linprobe.activations.rules import ProbePoint


def plan_notes(
    points: Sequence[ProbePoint], left_out: Mapping[str, str], missed: Sequence[str] = ()
) -> Iterator[str]:
    """Say which layers are left out, and which layouts and masks aren't as one might think.

    Args:
        points: as `Extractor.plan` gives them.
        left_out: why, by layer.
        missed: layers that the example did not reach.
    """
    if left_out:
        reason = next(iter(left_out.values()))
        yield f"Left out: layer {_and_more(list(left_out), f', which {reason}')}."
    if missed:
        yield f"Not reached by the first samples, and so not probed: {_and_more(missed)}."
    guessed = [point.layer for point in points if point.is_guessed]
    if guessed:
        yield (
            f"The layout of layer {_and_more(guessed)} can't be told from its operations: three "
            "dimensions were taken for samples, tokens, features, and more for samples, channels, "
            "places; layout='...' says it otherwise."
        )
    sequences = [p for p in points if p.reduction.tokens is not None]
    turned = [p.layer for p in sequences if p.reduction.layout == "channels_first"]
    if turned:
        yield (
            f"Channels come first in layer {_and_more(turned)}: positions were taken for tokens; "
            "tokens=None keeps them all."
        )
    spared = [p.layer for p in sequences if p.is_spared]
    if spared:
        yield (
            f"The attention mask does not count the tokens of layer {_and_more(spared)}, which "
            "come from another input: all of them were taken."
        )
    scaled = [p.layer for p in sequences if p.is_scaled]
    if scaled:
        yield (
            f"The attention mask was brought to the tokens of layer {_and_more(scaled)}, by the "
            "network's own rule or in proportion."
        )


def _and_more(layers: Sequence[str], said: str = "") -> str:
    others = f", and {len(layers) - 1} more" if len(layers) > 1 else ""
    return f"{layers[0]!r}{said}{others}"
