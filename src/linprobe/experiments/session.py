"""One run from start to end: its record, its files, its progress."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from linprobe.evaluation.controls import of_records
from linprobe.evaluation.statistics import depth_steps
from linprobe.experiments.probing import (
    LayerWatcher,
    Network,
    OnSolve,
    Probed,
    control_task,
    expected_cost,
    extras_of,
    layer_widths,
    probe_layers,
    training_cost,
)
from linprobe.experiments.settings import Samples, Settings
from linprobe.experiments.training import OnBatch, network_error_rate
from linprobe.pipeline.minibatch import EpochReport, OnEpoch
from linprobe.records.environment import environment, peak_rss_bytes
from linprobe.records.predictions import save_predictions
from linprobe.records.schema import CheckpointRecord, ExperimentRecord, ProbeRecord, RunRecord
from linprobe.records.store import save
from linprobe.report import wording
from linprobe.report.page import write_report
from linprobe.runtime.files import atomic_write
from linprobe.runtime.progress import OnEvent, Tracker

Draw = Callable[[RunRecord, Path], None]


class Session:
    """Probes a network at its checkpoints and writes everything down after each.

    Whatever fails later, the files of finished checkpoints are complete.

    Args:
        experiment: such as "fig5".
        settings: what all experiments take.
        config: the experiment's own settings, for the record.
        samples: what to probe on.
        network: on ``settings.device``; trained by the caller between calls of `probe`.
        checkpoints: name and minibatches of training of each, in order.
        batch_cost: rough seconds of a minibatch on two cores.
        draw: draws the figures of a record into a folder.
        on_event: receives progress.

    Attributes:
        record: the run so far.
    """

    def __init__(
        self,
        experiment: str,
        settings: Settings,
        config: ExperimentRecord,
        samples: Samples,
        network: Network,
        checkpoints: Sequence[tuple[str, int]],
        *,
        batch_cost: float,
        draw: Draw,
        on_event: OnEvent,
    ) -> None:
        self._started = time.perf_counter()
        self._settings, self._samples, self._network = settings, samples, network
        self._left = list(checkpoints)
        self._batch_cost, self._draw = batch_cost, draw
        widths = layer_widths(network, samples, settings.device)
        self._task = control_task(network, samples, settings)
        self._extras = extras_of(self._task, settings)
        costs = expected_cost(widths, len(samples.train_labels))
        times = 1 + self._extras.relative_cost
        self._costs = {layer: times * cost for layer, cost in costs.items()}
        training = settings.probe_training
        self._training_cost = 0.0
        if training is not None:
            self._training_cost = training_cost(widths, len(samples.train_labels), training)
        probing = len(checkpoints) * (self._training_cost + sum(self._costs.values()))
        self._tracker = Tracker(on_event, probing + batch_cost * checkpoints[-1][1])
        self._train_seconds = 0.0
        self.record = RunRecord(
            experiment=experiment,
            protocol=settings.protocol,
            seed=settings.seed,
            quick=settings.quick,
            config=settings.run_config(config),
            dataset=samples.dataset_record(),
            environment=environment(torch.get_num_threads(), settings.device),
            seconds=0.0,
            peak_rss_bytes=0,
            complete=False,
            checkpoints=(),
        )

    @contextlib.contextmanager
    def training(self, num_minibatches: int) -> Iterator[OnBatch]:
        """Time the block, which trains the network towards the next checkpoint.

        Yields:
            The callback that training reports to.
        """
        name, tracker = self._left[0][0], self._tracker
        tenths = 0

        def on_batch(done: int, total: int, loss: float) -> None:
            nonlocal tenths
            crossed = 10 * done // total > tenths
            tenths = 10 * done // total
            text = f"minibatch {done:,} of {total:,}, loss {loss:.3f}"
            cost = done * self._batch_cost
            tracker.report(name, "train", text, begun=cost, milestone=crossed)

        tracker.report(name, "train", f"{num_minibatches:,} minibatches", milestone=True)
        started = time.perf_counter()
        yield on_batch
        self._train_seconds = time.perf_counter() - started
        tracker.spend(num_minibatches * self._batch_cost)

    def probe(self) -> None:
        """Probe the network at the next checkpoint; write record, tensors, figures and report."""
        (name, step), *self._left = self._left
        settings, data = self._settings, self._samples.dataset
        self._tracker.report(name, "evaluate", "the network's own test error")
        started = time.perf_counter()
        rate = network_error_rate(self._network, data.test_images, data.test_labels)
        evaluated = time.perf_counter() - started
        probed = probe_layers(
            self._network, self._samples, settings, self._watcher(name), self._extras
        )
        stages = {"train": self._train_seconds, **probed.stages}
        stages["evaluate"] += evaluated
        self._train_seconds = 0.0
        self._save_tensors("probes", name, probed.tensors)
        save_predictions(settings.out, name, data.test_labels, probed.predictions)
        state = {key: value.cpu().contiguous() for key, value in self._network.state_dict().items()}
        self._save_tensors("networks", name, state)
        self.record = self.record.with_checkpoint(
            self._checkpoint(name, step, rate, stages, probed),
            seconds=time.perf_counter() - self._started,
            peak_rss_bytes=peak_rss_bytes(),
            complete=not self._left,
        )
        save(self.record, settings.out)
        self._draw(self.record, settings.out)
        write_report(self.record, settings.out)

    def _checkpoint(
        self, name: str, step: int, rate: float, stages: dict[str, float], probed: Probed
    ) -> CheckpointRecord:
        classes = {layer: made.predicted for layer, made in probed.predictions.items()}
        untrained = [c.probes for c in self.record.checkpoints if c.step == 0]
        settings = self._settings
        controls = of_records(
            *(settings.controls, self._task, probed.records),
            untrained=untrained[0] if untrained else (),
            untrained_seed=settings.seed,
        )
        return CheckpointRecord(
            *(name, step, rate, stages, probed.records),
            steps=depth_steps(classes, self._samples.dataset.test_labels),
            controls=(*probed.controls, *controls),
        )

    def _save_tensors(self, kind: str, name: str, tensors: dict[str, Tensor]) -> None:
        with atomic_write(self._settings.out / kind / f"{name}.safetensors") as temporary:
            save_file(tensors, temporary)

    def _watcher(self, name: str) -> LayerWatcher:
        tracker, costs, path = self._tracker, self._costs, self._settings.probe.l2_path
        passes = wording.passes(self.record)
        place = {layer: f"{layer} ({i}/{len(costs)})" for i, layer in enumerate(costs, 1)}
        begun: dict[str, float] = {}  # cost of what is done of the layers under way

        def extracting(layers: tuple[str, ...]) -> None:
            span = layers[0] if len(layers) == 1 else f"{layers[0]} to {layers[-1]}"
            tracker.report(name, "extract", f"features of {span}")

        def solving(layer: str) -> OnSolve:
            tracker.report(name, "solve", place[layer], begun=sum(begun.values()))
            solves = 0

            def on_solve(stage: str, l2: float, passes: float, gap: float) -> None:
                nonlocal solves
                solves += 1
                begun[layer] = min(1.0, solves / (len(path) + 1)) * costs[layer]
                text = f"{place[layer]}, {stage}: l2 {l2:.0e}, {passes:.0f} passes, gap {gap:.1e}"
                tracker.report(name, "solve", text, begun=sum(begun.values()))

            return on_solve

        def finished(record: ProbeRecord) -> None:
            tracker.spend(costs[record.layer])
            begun.pop(record.layer, None)
            text = (
                f"{place[record.layer]}: test error {record.test_error_rate:.4f}, "
                f"l2 {record.l2:.0e}, gap {record.duality_gap:.1e}, "
                f"{record.num_passes:.0f} {passes}, {record.seconds:.1f} s"
            )
            unsolved = wording.outcome(record)
            done = sum(begun.values())
            tracker.report(name, "solve", text + unsolved, begun=done, milestone=True)

        return LayerWatcher(extracting, solving, finished, self._epochs(name))

    def _epochs(self, name: str) -> OnEpoch:
        """Receives the epochs of probes that are trained all at once."""
        tenths = 0

        def trained(report: EpochReport) -> None:
            nonlocal tenths
            crossed = int(10 * report.share) > tenths
            tenths = int(10 * report.share)
            text = (
                f"epoch {report.epoch}, mean loss {report.mean_loss:.4f}, {report.active} of "
                f"{len(self._costs)} probes go on"
            )
            cost = report.share * self._training_cost
            self._tracker.report(name, "solve", text, begun=cost, milestone=crossed)
            if report.share == 1:
                self._tracker.spend(cost)

        return trained
