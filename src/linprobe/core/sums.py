"""Sums over samples: the seam between one process and several that share the rows."""

from typing import Protocol

import torch
from torch import Tensor

from linprobe.runtime.distributed import Ranks

_BEFORE, _BEYOND = -1.0, 2.0  # shares lie between 0 and 1


class Sums(Protocol):
    """Completes what one process has computed from its own rows.

    All that sums over samples calls this, so that rows may be shared out among processes: with
    collective operations for these methods, every process takes the same steps.

    Attributes:
        alone: whether all rows are here.
    """

    alone: bool

    def total(self, local: Tensor) -> Tensor:
        """Add the tensors of all processes."""
        ...

    def largest(self, local: Tensor) -> Tensor:
        """Take the elementwise maximum over all processes."""
        ...

    def spans(self, share: Tensor) -> tuple[Tensor, Tensor]:
        """Lay the shares (n,) of all rows end to end; they sum to 1.

        Returns:
            Where each row of this process begins and ends, (n,) each, in float64: below zero where
            all begin, above one where all end.
        """
        ...

    def gathered(self, local: Tensor) -> Tensor:
        """Concatenate the rows of all processes, in their order, along the first dimension."""
        ...

    def agreed(self, value: Tensor) -> Tensor:
        """Take the first process's value, so that rounding lets no process go its own way."""
        ...


class LocalSums:
    """The `Sums` of a process that has all rows: identities."""

    alone = True

    def total(self, local: Tensor) -> Tensor:
        """See `Sums`."""
        return local

    def largest(self, local: Tensor) -> Tensor:
        """See `Sums`."""
        return local

    def spans(self, share: Tensor) -> tuple[Tensor, Tensor]:
        """See `Sums`."""
        ends = share.cumsum(0)
        starts = torch.cat([ends.new_full((1,), _BEFORE), ends[:-1]])
        ends[-1:] = _BEYOND
        return starts, ends

    def gathered(self, local: Tensor) -> Tensor:
        """See `Sums`."""
        return local

    def agreed(self, value: Tensor) -> Tensor:
        """See `Sums`."""
        return value


class SharedSums:
    """The `Sums` of several processes, which have some of the rows each.

    Rows that are fitted come first, process by process, then those held out: so a sample of the
    rows does not depend on how they are shared out.

    Args:
        ranks: the processes.
        num_first: rows of this process that come before the others of all processes.
    """

    alone = False

    def __init__(self, ranks: Ranks, num_first: int = 0) -> None:
        self._ranks, self._num_first = ranks, num_first

    def total(self, local: Tensor) -> Tensor:
        """See `Sums`."""
        return self._reduced(local, "SUM")

    def largest(self, local: Tensor) -> Tensor:
        """See `Sums`."""
        return self._reduced(local, "MAX")

    def spans(self, share: Tensor) -> tuple[Tensor, Tensor]:
        """See `Sums`."""
        parts = share[: self._num_first].cumsum(0), share[self._num_first :].cumsum(0)
        own = torch.stack([part[-1] if len(part) else share.new_zeros(()) for part in parts])
        # (2, size): sizes in rows and in shares, of the first parts and of the others.
        sizes = self.gathered(torch.tensor([list(map(len, parts))])).T.reshape(-1)
        shares = self.gathered(own.cpu()[None]).T.reshape(-1)
        # One after the other, so that a row ends exactly where the next one begins.
        begins = [0.0]
        for value in shares.tolist():
            begins.append(begins[-1] + value)
        filled = sizes.nonzero()[:, 0].tolist()
        starts, ends = torch.empty_like(share), torch.empty_like(share)
        for number, (part, where) in enumerate(
            zip(parts, (slice(0, self._num_first), slice(self._num_first, None)), strict=True)
        ):
            if not len(part):
                continue
            place = number * self._ranks.size + self._ranks.rank
            reached = begins[place] + part
            starts[where] = torch.cat([reached.new_full((1,), begins[place]), reached[:-1]])
            ends[where] = reached
            if place == filled[0]:
                starts[where.start] = _BEFORE
            if place == filled[-1]:
                ends[where.start + len(part) - 1] = _BEYOND
        return starts, ends

    def gathered(self, local: Tensor) -> Tensor:
        """See `Sums`."""
        import torch.distributed as dist

        width = local.shape[1:].numel() * local.element_size()
        rows = torch.tensor([len(local)])
        found = [torch.empty_like(rows) for _ in range(self._ranks.size)]
        self._ranks.collect(lambda group: dist.all_gather(found, rows, group=group))
        sizes = [width * int(count) for count in found]
        own = local.contiguous().reshape(-1).view(torch.uint8)
        padded = own.new_zeros(max(sizes))  # all give as much
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in sizes]
        self._ranks.collect(lambda group: dist.all_gather(parts, padded, group=group))
        whole = torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
        return whole.view(local.dtype).view(-1, *local.shape[1:])

    def agreed(self, value: Tensor) -> Tensor:
        """See `Sums`."""
        import torch.distributed as dist

        out = value.contiguous().clone()
        self._ranks.collect(lambda group: dist.broadcast(out, 0, group=group))
        return out

    def _reduced(self, local: Tensor, operation: str) -> Tensor:
        import torch.distributed as dist

        out = local.contiguous().clone()
        reduce = getattr(dist.ReduceOp, operation)
        self._ranks.collect(lambda group: dist.all_reduce(out, reduce, group=group))
        return out


def anywhere(sums: Sums, flag: bool) -> bool:
    """Tell whether a flag is set in any process."""
    return bool(sums.largest(torch.tensor(int(flag))))


def least(sums: Sums, number: float) -> float:
    """Take the smallest number of all processes."""
    return -float(sums.largest(torch.tensor(-number, dtype=torch.float64)))
