"""Several processes that share one piece of work, by torch.distributed.

linprobe starts none: it joins those that torchrun, SLURM or the user started, by an initialised
process group or by RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. Processes meet in the group's
store, where each one shows that it is alive: they may wait for each other as long as work takes,
and still learn within a minute of one that died.
"""

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.heartbeat import LostProcess, Pulse
from linprobe.runtime.progress import Event, OnEvent
from linprobe.runtime.text import cause, first_line

Value = TypeVar("Value")

_JOIN_SECONDS = 300.0  # that the others may take until their first call
_TIMEOUT = 45.0


class Ranks:
    """The processes that share a piece of work; by default, one that has it all.

    Args:
        group: those that this process has joined; None: it is alone.

    Attributes:
        rank: number of this process, from 0 on.
        size: how many there are.
    """

    def __init__(self, group: "_Group | None" = None) -> None:
        self._group = group
        self.rank, self.size = (0, 1) if group is None else (group.rank, group.size)

    @property
    def leads(self) -> bool:
        """Tell whether this process writes files and prints."""
        return self.rank == 0

    def check(self) -> None:
        """Learn whether the others are still there.

        Raises:
            LostProcess: One has failed, or no longer answers.
        """
        if self._group is not None:
            self._group.pulse.check()

    def agreed(self, value: Value) -> Value:
        """Give the first process's value, once all have come here."""
        return value if self._group is None else self._group.agreed(value)

    def gathered(self, value: Value) -> list[Value]:
        """Give the values of all, in their order, once all have come here."""
        return [value] if self._group is None else self._group.gathered(value)

    def collect(self, collective: Callable[[Any], object]) -> None:
        """Call a collective operation with the process group, once all have come here."""
        if self._group is not None:
            self._group.collect(collective)

    def same(self, value: object, what: str) -> None:
        """Check that all processes have the same value, which prints as what it is.

        Raises:
            LinprobeError: They differ; `what` says in which respect.
        """
        if len({repr(given) for given in self.gathered(value)}) > 1:
            raise LinprobeError(
                f"the {self.size} processes were called with different {what}; expected the same "
                "call in all, or distribute=None for calls that have nothing to do with each other"
            )

    def watched(self, show: OnEvent) -> OnEvent:
        """Show events in the first process only, and end the work of all where one is lost."""
        if self._group is None:
            return show

        def on_event(event: Event) -> None:
            self.check()
            if self.leads:
                show(event)

        return on_event


ALONE = Ranks()
"""One process that has all of the work."""


@contextmanager
def shared(wanted: bool = True, folder: Path | None = None) -> Iterator[Ranks]:
    """Share the work of a block with all other processes, which enter the same block.

    Args:
        wanted: if not, or where there is one process only, the block has all of the work.
        folder: where finished layers are kept.

    Raises:
        LinprobeError: The others can't be joined, or one of them is lost (`LostProcess`).
    """
    group = _joined() if wanted else None
    if group is None:
        yield ALONE
        return
    group.begin()
    try:
        yield Ranks(group)
    except LostProcess as error:
        if folder is None:
            raise
        kept = f"finished layers are kept in {folder}, and the same call goes on from there"
        raise LostProcess(f"{error}; {kept}") from error
    except BaseException as error:
        text = first_line(error) if isinstance(error, LinprobeError) else cause(error)
        group.pulse.fail(f"process {group.rank} of {group.size} failed: {text.rstrip(': ')}")
        raise


def is_first() -> bool:
    """Tell whether this process is the first, or alone, and so the one to print."""
    if _group is not None:
        return _group.rank == 0
    return (_from_environment() or (0, 1))[0] == 0


def is_spoken_for() -> bool:
    """Tell whether another process says what ends this one."""
    if _group is not None and _group.pulse.first_is_lost:
        return _group.rank > 1
    return not is_first()


def timeout_seconds() -> float:
    """Read after how many seconds a process that does not answer counts as lost."""
    text = os.environ.get("LINPROBE_TIMEOUT", str(_TIMEOUT))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds < float("inf"):
        raise LinprobeError(f"LINPROBE_TIMEOUT is {text!r}; expected seconds, 1 or more")
    return seconds


_group: "_Group | None" = None  # joined at the first call, left when the process ends


def _joined() -> "_Group | None":
    global _group
    import torch.distributed as dist

    if not dist.is_available():
        return None
    if _group is None:
        given = dist.is_initialized()
        if (dist.get_world_size() if given else (_from_environment() or (0, 1))[1]) > 1:
            _group = _Group(given)
            atexit.register(_group.leave)
    return _group


def _from_environment() -> tuple[int, int] | None:
    """RANK and WORLD_SIZE; None: they are not set."""
    texts = [os.environ.get(name) for name in ("RANK", "WORLD_SIZE")]
    if None in texts:
        return None
    try:
        rank, size = (int(text or "") for text in texts)
    except ValueError:
        rank, size = -1, 0
    if not 0 <= rank < size:
        raise LinprobeError(
            f"RANK is {texts[0]!r} and WORLD_SIZE {texts[1]!r}; expected whole numbers, RANK from "
            "0 to WORLD_SIZE - 1, as torchrun sets them"
        )
    return rank, size


class _Group:
    """A process group with a store, joined once and for all calls."""

    def __init__(self, given: bool) -> None:
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import PrefixStore, _get_default_store
        from torch.distributed.rendezvous import rendezvous

        seconds, self._given = timeout_seconds(), given
        limit, patience = timedelta(seconds=seconds), timedelta(seconds=_JOIN_SECONDS)
        try:
            if given:
                self.rank, self.size = dist.get_rank(), dist.get_world_size()
                store = _get_default_store()
            else:
                _check_address()
                found = rendezvous("env://", timeout=patience)
                store, self.rank, self.size = next(iter(found))
            self._store = PrefixStore("linprobe", store)
            self.pulse = Pulse(self._store, self.rank, self.size, seconds)
            self.pulse.wait("here", _JOIN_SECONDS)  # before anything that waits for `limit` only
            backend = "cpu:gloo,cuda:nccl" if _choose_gpu(given) else "gloo"
            if not given:
                groups = PrefixStore("group", self._store)
                dist.init_process_group(
                    backend, store=groups, rank=self.rank, world_size=self.size, timeout=limit
                )
            self._handle: Any = dist.group.WORLD
            if given:  # whose own time limit may be half an hour
                self._handle = dist.new_group(timeout=limit, backend=backend)
        except (RuntimeError, ValueError) as error:
            raise LinprobeError(
                f"the processes can't be joined ({first_line(error)[:200]}); expected "
                f"{_size_text()} processes that all make the same call of linprobe; "
                "distribute=None works in this one alone"
            ) from error

    def begin(self) -> None:
        """Begin the next call."""
        self.pulse.begin()

    def agreed(self, value: Value) -> Value:
        """See `Ranks`."""
        import torch.distributed as dist

        found = [value]
        self.collect(lambda group: dist.broadcast_object_list(found, src=0, group=group))
        return found[0]

    def gathered(self, value: Value) -> list[Value]:
        """See `Ranks`."""
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        self.collect(lambda group: dist.all_gather_object(found, value, group=group))
        return found

    def collect(self, collective: Callable[[Any], object]) -> None:
        """See `Ranks`."""
        self.pulse.meet()
        with self.pulse.answering():
            collective(self._handle)

    def leave(self) -> None:
        """Leave when the process ends; the first one last, since it may have the store."""
        import torch.distributed as dist

        self.pulse.end(wait=self.rank == 0 and not self._given)
        if not self._given and dist.is_initialized() and not self.pulse.lost:
            dist.destroy_process_group()


def _check_address() -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            raise LinprobeError(
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {name} is not set; expected the "
                "address and a free port of the first process, as torchrun sets them, or no "
                "WORLD_SIZE for one process"
            )


def _size_text() -> str:
    return os.environ.get("WORLD_SIZE", "all")


def _choose_gpu(given: bool) -> bool:
    """Take this process's own GPU, where nobody else has chosen; tell whether there is one."""
    import torch

    if not torch.cuda.is_available() or not torch.distributed.is_nccl_available():
        return False
    if not given:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return True
