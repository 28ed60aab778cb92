"""Progress events of a run. No torch here: displays import this."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock


@dataclass(frozen=True)
class Event:
    """One step of progress.

    Attributes:
        fraction: share of the run's expected work that is done, 0 to 1.
        checkpoint: which state of the network it belongs to.
        stage: "train", "extract", "solve" or "evaluate".
        text: the work that is under way, in a few words.
        milestone: something was finished; displays without a live line show only these.
    """

    fraction: float
    checkpoint: str
    stage: str
    text: str
    milestone: bool = False


OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Ignore an event."""


class Tracker:
    """Tracks the share of the work that is finished; several threads may report.

    Args:
        on_event: receives the events, one at a time.
        total: expected cost of the run, in any unit.
    """

    def __init__(self, on_event: OnEvent, total: float) -> None:
        self._on_event = on_event
        self._total = max(total, 1e-9)
        self._spent = 0.0
        self._shown = 0.0
        self._lock = Lock()

    def report(
        self, checkpoint: str, stage: str, text: str, *, begun: float = 0.0, milestone: bool = False
    ) -> None:
        """Send an event; `begun` is the cost of work that is under way."""
        with self._lock:
            # Costs added in another order differ by their rounding: no display should run
            # backwards.
            self._shown = max(self._shown, min(1.0, (self._spent + begun) / self._total))
            self._on_event(Event(self._shown, checkpoint, stage, text, milestone))

    def spend(self, cost: float) -> None:
        """Count work of this cost as done."""
        self._spent += cost
