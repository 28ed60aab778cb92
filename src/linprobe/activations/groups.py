"""Layers whose features are held in memory together."""

from collections.abc import Mapping


def plan_groups(
    num_features: Mapping[str, int], num_rows: int, budget_bytes: float, itemsize: int = 4
) -> list[tuple[str, ...]]:
    """Split layers, in order, into groups whose features fit the budget together.

    Args:
        num_features: of each layer.
        num_rows: samples whose features are held at a time.
        budget_bytes: a layer that is larger by itself is a group of its own.
        itemsize: bytes of a number.
    """
    groups: list[list[str]] = []
    used = 0.0
    for layer, width in num_features.items():
        size = float(itemsize) * width * num_rows
        if not groups or used + size > budget_bytes:
            groups.append([])
            used = 0.0
        groups[-1].append(layer)
        used += size
    return [tuple(group) for group in groups]
