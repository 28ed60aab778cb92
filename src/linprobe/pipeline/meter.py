"""From what the engine does to events that displays show."""

from collections.abc import Callable, Mapping
from threading import Lock

from linprobe.pipeline.task import Task
from linprobe.probes.base import OnSolve
from linprobe.probes.minibatch import SGDProtocol
from linprobe.records.schema import ProbeRecord
from linprobe.report import wording
from linprobe.runtime.progress import Tracker
from linprobe.runtime.threads import NARROW

_EPOCHS_SHOWN = 100


class Meter:
    """Reports the progress of one checkpoint's probes; several threads may call it.

    Args:
        tracker: receives the events.
        checkpoint: name of the state of the network.
        costs: expected seconds of each layer, in order.
        num_solves: expected calls of each layer's receiver: penalties of the path and the refit, or
            epochs of its training.
        unit: what a probe's `num_passes` counts.
    """

    def __init__(
        self,
        tracker: Tracker,
        checkpoint: str,
        costs: Mapping[str, float],
        *,
        num_solves: int,
        unit: str = "passes",
    ) -> None:
        self._tracker, self._checkpoint, self._costs = tracker, checkpoint, costs
        self._num_solves, self._unit = num_solves, unit
        self._labels = {layer: f"{layer} ({i}/{len(costs)})" for i, layer in enumerate(costs, 1)}
        self._begun: dict[str, float] = {}  # cost of what is done of the layers under way
        self._lock = Lock()

    def extracting(self, layers: tuple[str, ...], split: str) -> Callable[[int, int], None]:
        """Announce the features of some layers; the receiver is called with rows done and all."""
        span = layers[0] if len(layers) == 1 else f"{layers[0]} to {layers[-1]}"
        text = f"{split} features of {span}"
        self._tracker.report(self._checkpoint, "extract", text)

        def on_rows(done: int, total: int) -> None:
            text_now = f"{text}: {done:,} of {total:,}"
            self._tracker.report(self._checkpoint, "extract", text_now)

        return on_rows

    def solving(self, layer: str) -> OnSolve:
        """Announce a layer; the receiver takes what its solver says."""
        self._say(layer, self._labels[layer])
        solves = 0

        def on_solve(stage: str, l2: float, passes: float, gap: float) -> None:
            nonlocal solves
            solves += 1
            share = min(1.0, solves / self._num_solves)
            label = self._labels[layer]
            text = f"{label}, {stage}: l2 {l2:.0e}, {passes:.0f} passes, gap {gap:.1e}"
            if stage == "epoch":
                text = f"{label}, epoch {passes:.0f}: mean loss {gap:.4f}"
            # Long trainings show a sign of life where only milestones are printed.
            milestone = stage == "epoch" and solves % _EPOCHS_SHOWN == 0
            self._say(layer, text, share * self._costs[layer], milestone=milestone)

        return on_solve

    def finished(self, record: ProbeRecord) -> None:
        """Report that a layer is done."""
        with self._lock:
            self._begun.pop(record.layer, None)
            self._tracker.spend(self._costs[record.layer])
            text = (
                f"{self._labels[record.layer]}: test error {record.test_error_rate:.4f}, "
                f"l2 {record.l2:.0e}, gap {record.duality_gap:.1e}, "
                f"{record.num_passes:.0f} {self._unit}, {record.seconds:.1f} s"
            )
            done = sum(self._begun.values())
            text += wording.outcome(record)
            self._tracker.report(self._checkpoint, "solve", text, begun=done, milestone=True)

    def _say(
        self, layer: str, text: str, begun: float | None = None, *, milestone: bool = False
    ) -> None:
        with self._lock:
            if begun is not None:
                self._begun[layer] = begun
            done = sum(self._begun.values())
            self._tracker.report(self._checkpoint, "solve", text, begun=done, milestone=milestone)


def expected_costs(
    num_features: Mapping[str, int], task: Task, protocol: SGDProtocol | None = None
) -> dict[str, float]:
    """Rough seconds for each layer on two cores, for estimates of the time left.

    Args:
        num_features: of each layer.
        task: how many rows, and what is computed beside each probe.
        protocol: by which probes are trained, none of which is taken to stop early; None: they are
            solved.
    """
    share, times = len(task.order) / 60_000, 1 + task.plan.relative_cost
    costs = {k: 0.05 + (0.6 + 6e-3 * width) * share for k, width in num_features.items()}
    if protocol is not None:
        epochs, times = protocol.max_epochs, 1.0
        costs = {k: epochs * (0.1 + 4e-5 * width) * share for k, width in num_features.items()}
    return {k: times * cost / (1 + (num_features[k] <= NARROW)) for k, cost in costs.items()}
