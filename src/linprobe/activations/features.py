"""Features of any taps over a whole data split, in one forward pass a batch."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from linprobe.activations.taps import Taps
from linprobe.runtime.errors import LinprobeError

OnRows = Callable[[int, int], None]
"""Called as ``progress(done, total)`` after each batch; both count samples."""


def extract_features(
    network: nn.Module,
    inputs: Tensor,
    taps: Sequence[str],
    *,
    batch_size: int = 500,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    room: Tensor | None = None,
    progress: OnRows | None = None,
) -> dict[str, Tensor]:
    """Run `network` over `inputs` and collect the flattened features of each tap.

    Args:
        network: left as it was, on the device that it is on.
        inputs: (n_samples, ...), moved to the network's device a batch at a time.
        taps: as `linprobe.activations.taps` writes them.
        batch_size: samples in one forward pass.
        device: where the features are kept; default: the CPU.
        dtype: in which they are kept.
        room: flat tensor of that dtype and device that is filled instead of new memory, whose
            first touch takes as long as the forward pass; what it held is overwritten.
        progress: called after each batch.

    Returns:
        Tap to (n_samples, n_features) of that dtype, in the order of `taps`; row i belongs to
        ``inputs[i]``, flattened in the order of the tensor's dimensions.

    Raises:
        LinprobeError: No inputs, a batch size less than 1, an unknown tap, or a tap without a
            row for each sample or with rows whose width changes.
    """
    if len(inputs) == 0:
        raise LinprobeError("there are no inputs to extract features from; expected at least one")
    if batch_size < 1:
        raise LinprobeError(f"batch size is {batch_size}; expected at least 1")
    points = Taps(network, taps)
    place = next(network.parameters(), inputs).device
    store = _Store(len(inputs), torch.device(device or "cpu"), dtype, room)
    for start in range(0, len(inputs), batch_size):
        batch = inputs[start : start + batch_size].to(place)
        store.rows = slice(start, start + len(batch))
        points.stream(store.keep, batch)
        if progress is not None:
            progress(start + len(batch), len(inputs))
    return {tap: store.features[tap] for tap in taps}


class _Store:
    """Feature matrices, allocated when a tap's width is known, filled by rows."""

    def __init__(
        self, num_samples: int, device: torch.device, dtype: torch.dtype, room: Tensor | None
    ) -> None:
        self.features: dict[str, Tensor] = {}
        self.rows = slice(0, 0)
        self._room = room
        self._num_samples, self._device, self._dtype = num_samples, device, dtype

    def keep(self, tap: str, tensor: Tensor) -> None:
        """Copy a batch's tensor (batch_size, ...) to its rows, whatever its memory format."""
        batch_size = self.rows.stop - self.rows.start
        if tensor.shape[:1] != (batch_size,):
            raise LinprobeError(
                f"tap {tap!r} gives shape {tuple(tensor.shape)} for {batch_size} samples; "
                "expected the samples along the first dimension"
            )
        width = tensor[0].numel()
        if tap not in self.features:
            self.features[tap] = self._place(width)
        features = self.features[tap]
        if features.shape[1] != width:
            raise LinprobeError(
                f"tap {tap!r} gives {width} features from sample {self.rows.start} on, but "
                f"{features.shape[1]} before; expected the same number for every sample"
            )
        # Straight into place: a flattened copy on the way would cost one more pass of memory.
        features[self.rows].view(tensor.shape).copy_(tensor)

    def _place(self, width: int) -> Tensor:
        shape, size = (self._num_samples, width), self._num_samples * width
        if self._room is None or len(self._room) < size:
            return torch.empty(shape, dtype=self._dtype, device=self._device)
        place, self._room = self._room[:size], self._room[size:]
        return place.view(shape)


def feature_widths(network: nn.Module, example: Tensor, taps: Sequence[str]) -> dict[str, int]:
    """Number of features of each tap.

    Args:
        network: left as it was.
        example: one sample or more (n_samples, ...), n_samples >= 1.
        taps: as `linprobe.activations.taps` writes them.

    Returns:
        Tap to the number of features of a sample, in the order of `taps`.

    Raises:
        LinprobeError: As `extract_features`.
    """
    found = extract_features(network, example[:1], taps)
    return {tap: features.shape[1] for tap, features in found.items()}


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
