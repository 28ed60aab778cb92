"""Sums over samples: the seam between one process and several that share the rows."""

from typing import Protocol

import torch
from torch import Tensor


class Sums(Protocol):
    """Completes what one process has computed from its own rows.

    A problem calls this wherever it sums over samples, so that rows may be shared out among
    processes: with all-reduces for these methods, every process takes the same steps.
    """

    def total(self, local: Tensor) -> Tensor:
        """Add the tensors of all processes."""
        ...

    def largest(self, local: Tensor) -> Tensor:
        """Take the elementwise maximum over all processes."""
        ...

    def before(self, local: Tensor) -> Tensor:
        """Add the tensors of the processes before this one (exclusive prefix sum)."""
        ...

    def gathered(self, local: Tensor) -> Tensor:
        """Concatenate the rows of all processes, in their order, along the first dimension."""
        ...

    def agreed(self, value: Tensor) -> Tensor:
        """Take the first process's value, so that rounding lets no process go its own way."""
        ...


class LocalSums:
    """The `Sums` of a process that has all rows: identities."""

    def total(self, local: Tensor) -> Tensor:
        """See `Sums`."""
        return local

    def largest(self, local: Tensor) -> Tensor:
        """See `Sums`."""
        return local

    def before(self, local: Tensor) -> Tensor:
        """See `Sums`."""
        return torch.zeros_like(local)

    def gathered(self, local: Tensor) -> Tensor:
        """See `Sums`."""
        return local

    def agreed(self, value: Tensor) -> Tensor:
        """See `Sums`."""
        return value
