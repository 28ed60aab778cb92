"""Progress of `probe` and `fit_probes`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from linprobe.pipeline.meter import Meter, expected_costs
from linprobe.pipeline.report import CHECKPOINT
from linprobe.pipeline.task import SetName, Task
from linprobe.report.terminal import auto_progress, make_console, show_progress
from linprobe.runtime.distributed import ALONE, Ranks
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.progress import OnEvent, Tracker, ignore

Progress = bool | OnEvent | None


@contextmanager
def progress_shown(progress: Progress, ranks: Ranks = ALONE) -> Iterator[OnEvent]:
    """Give the receiver of events, which shows them until the block ends where that is asked.

    Args:
        progress: as `probe` takes it.
        ranks: processes of the call, of which the first one shows.

    Raises:
        LinprobeError: Something else.
    """
    if not ranks.leads:
        yield ignore
    elif progress is None:
        with auto_progress() as show:
            yield show
    elif progress is True:
        with show_progress(make_console(stderr=True)) as show:
            yield show
    elif progress and not callable(progress):
        raise LinprobeError(f"progress is {progress!r}; expected None, True, False or a function")
    else:
        yield progress or ignore


def single_meter(show: OnEvent, num_features: Mapping[str, int], task: Task) -> Meter:
    """The meter of a call that probes one state of a network."""
    return meters(show, num_features, {None: task})[None]


def meters(
    show: OnEvent, num_features: Mapping[str, int], tasks: Mapping[SetName, Task]
) -> dict[SetName, Meter]:
    """The meters of a call that fits probes to several label sets."""
    costs = {name: expected_costs(num_features, task) for name, task in tasks.items()}
    tracker = Tracker(show, sum(sum(own.values()) for own in costs.values()))
    return {
        name: Meter(
            tracker, name or CHECKPOINT, costs[name], num_solves=1 + len(task.config.l2_path)
        )
        for name, task in tasks.items()
    }
