"""Layers dealt to the processes that share a call."""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Literal, TypeVar

from linprobe.pipeline.layer_probe import Probe
from linprobe.records.schema import ProbeRecord
from linprobe.runtime.distributed import Ranks
from linprobe.runtime.errors import LinprobeError

Key = TypeVar("Key", bound=Hashable)

DIFFERENT = "data, networks or settings"
"""Names of what may differ between calls that are to be the same."""

Distribute = Literal["layers", "rows"] | None
"""The part of a call that is dealt to the processes that make it; None: nothing."""

_OVERHEAD = 100  # features whose cost is that of a layer without any


def dealt(widths: Mapping[str, int], size: int) -> list[list[str]]:
    """Deal layers, the longest first, each to the process that has the least to do.

    All layers of a call have the same rows: a layer costs as much as it has features.

    Args:
        widths: number of features of each layer.
        size: number of processes.

    Returns:
        The layers of each process, in the order of `widths`; few layers leave processes without.
    """
    hands: list[list[str]] = [[] for _ in range(size)]
    costs = [0] * size
    for layer in sorted(widths, key=lambda name: -widths[name]):
        least = costs.index(min(costs))
        hands[least].append(layer)
        costs[least] += widths[layer] + _OVERHEAD
    return [[layer for layer in widths if layer in hand] for hand in hands]


def check_distribute(distribute: object, known: Sequence[str] = ("layers",)) -> None:
    """Refuse what can't be dealt."""
    if distribute not in (None, *known):
        names = ", ".join(map(repr, known))
        raise LinprobeError(f"distribute is {distribute!r}; expected {names} or None")


class Dealer:
    """Deals the layers of one state of a network, and gathers their probes.

    Args:
        ranks: the processes.
        widths: number of features of each layer, the same in all processes.
        shares_rows: all processes work on every layer, with some of its rows each.

    Raises:
        LinprobeError: Processes have different layers.
    """

    def __init__(
        self, ranks: Ranks, widths: Mapping[str, int], *, shares_rows: bool = False
    ) -> None:
        ranks.same(dict(widths), "layers")
        self._ranks, self._widths, self._shares_rows = ranks, widths, shares_rows

    def own_part(self, finished: Collection[str]) -> list[str]:
        """Deal the layers that are not finished, the same in all processes; return own ones."""
        left = {layer: width for layer, width in self._widths.items() if layer not in finished}
        return list(left) if self._shares_rows else dealt(left, self._ranks.size)[self._ranks.rank]

    def gathered(
        self,
        probes: Mapping[Key, Probe],
        errors: Sequence[Exception],
        on_other: Callable[[Key, ProbeRecord], None],
    ) -> dict[Key, Probe]:
        """Give every process the probes of all.

        Args:
            probes: of this process, by layer and label set.
            errors: that took probes away.
            on_other: called with each probe of another process: its key, and its record.

        Raises:
            LinprobeError: There is no probe at all.
        """
        parts = self._ranks.gathered((dict(probes), [str(error) for error in errors]))
        found = {key: probe for part, _ in parts for key, probe in part.items()}
        said = [text for _, texts in parts for text in texts]
        if said and len(said) == len(found):
            raise errors[0] if errors else LinprobeError(said[0])
        for key, probe in found.items():
            if key not in probes:
                on_other(key, probe.record)
        return found
