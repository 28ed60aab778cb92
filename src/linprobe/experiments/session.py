"""One run of an experiment from start to end: train, probe at each checkpoint, write it down."""

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from linprobe.activations.extract import Extractor
from linprobe.activations.options import ExtractionOptions
from linprobe.activations.rules import ProbePoint
from linprobe.data.inputs import Source, example_batch
from linprobe.data.splits import Split
from linprobe.evaluation.controls import ControlData, of_records
from linprobe.experiments.experiment import Experiment, OnBatch, Trainer
from linprobe.experiments.kept import NetworkStates, network_fingerprint, run_fingerprint
from linprobe.experiments.records import BATCH_SIZE, first_record
from linprobe.experiments.samples import Samples, load_samples
from linprobe.experiments.settings import Settings
from linprobe.experiments.training import network_error_rate
from linprobe.pipeline.checkpoint import checkpoint_record
from linprobe.pipeline.controls import with_plan
from linprobe.pipeline.dealing import DIFFERENT
from linprobe.pipeline.engine import Probed, Shelf, probe_layers
from linprobe.pipeline.layer_probe import save_probes
from linprobe.pipeline.meter import Meter, expected_costs
from linprobe.pipeline.network_layers import NetworkLayers
from linprobe.pipeline.task import Task, failure_notes
from linprobe.pipeline.unfinished import Parts, Unfinished, is_finished
from linprobe.probes.minibatch import MinibatchProbe
from linprobe.probes.weights import numbered_class_weight
from linprobe.records.environment import peak_rss_bytes
from linprobe.records.schema import RunRecord
from linprobe.records.store import check_writable
from linprobe.records.store import save as save_run
from linprobe.report.page import write_report
from linprobe.runtime.distributed import ALONE, Ranks, shared
from linprobe.runtime.lock import folder_lock
from linprobe.runtime.progress import OnEvent, Tracker, ignore
from linprobe.runtime.randomness import generator
from linprobe.runtime.tensors import write_tensors


def run(experiment: Experiment, settings: Settings, on_event: OnEvent = ignore) -> RunRecord:
    """Train an experiment's network, probe it at each checkpoint, and write the run.

    Called again, it goes on where an earlier call with the same experiment and settings stopped.

    Args:
        experiment: what to run.
        settings: where to, on what data, with which seed and method.
        on_event: receives progress.

    Raises:
        LinprobeError: The folder can't be used or holds another run, or the data can't be had.
    """
    with shared(folder=settings.out) as ranks:
        return run_shared(experiment, settings, ranks.watched(on_event), ranks)


def run_shared(
    experiment: Experiment, settings: Settings, on_event: OnEvent, ranks: Ranks
) -> RunRecord:
    """Do what `run` does, in all processes of a call."""
    draws = generator(settings.seed, "network")
    network = experiment.network(draws, quick=settings.quick).to(settings.device)
    if ranks.leads:
        check_writable(settings.out)
    with folder_lock(settings.out) if ranks.leads else contextlib.nullcontext():
        session = Session(experiment, settings, load_samples(settings), network, on_event, ranks)
        session.run()
    return session.record


class Session:
    """Probes a network at its checkpoints and writes everything down.

    Each layer and each state of the network is on disk before the next is begun, and the files of
    a finished checkpoint are complete, whatever ends the process later.

    Args:
        experiment: what to run.
        settings: what all experiments take.
        samples: what to train and probe on.
        network: on ``settings.device``; trained in place.
        on_event: receives progress.
        ranks: processes that do the same. The first one trains the network and has the folder; the
            others probe the layers that are dealt to them.

    Attributes:
        record: the run so far.
    """

    def __init__(
        self,
        experiment: Experiment,
        settings: Settings,
        samples: Samples,
        network: nn.Module,
        on_event: OnEvent,
        ranks: Ranks = ALONE,
    ) -> None:
        self._ranks = ranks
        self._started = time.perf_counter()
        self._experiment, self._settings, self._samples = experiment, settings, samples
        self._network = network
        num_train = len(samples.targets.labels)
        self._checkpoints = experiment.checkpoints(num_train, quick=settings.quick)
        self._task, self._points = self._make_task(), self._make_points()
        widths = {point.layer: point.num_features for point in self._points}
        self._costs = expected_costs(widths, self._task, settings.probe_training)
        self._batch_cost = experiment.batch_seconds(quick=settings.quick)
        probing = len(self._checkpoints) * sum(self._costs.values())
        self._tracker = Tracker(on_event, probing + self._batch_cost * self._checkpoints[-1][1])
        dataset = samples.record()
        self._fingerprint = run_fingerprint(experiment, settings, dataset)
        self._unfinished = Unfinished(settings.out, overwrite=settings.overwrite)
        ranks.same(self._fingerprint, DIFFERENT)
        found = self._unfinished.open(self._fingerprint) if ranks.leads else None
        self._earlier = first_record(experiment, settings, dataset, self._fingerprint)
        self._earlier = self.record = self._earlier if found is None else found

    def run(self) -> None:
        """Train and probe, checkpoint after checkpoint, what is not done yet."""
        if self._ranks.leads:
            self._lead()
            self._ranks.agreed(None)
        else:
            self._follow()
        self.record = self._ranks.agreed(self.record)

    def _follow(self) -> None:
        """Probe the states of the network that the first process sends."""
        nothing: tuple[str, str, dict[str, Tensor]] | None = None
        while (sent := self._ranks.agreed(nothing)) is not None:
            name, hashed, state = sent
            self._network.load_state_dict(state)
            self._probe_layers(name, self._parts(name, hashed))

    def _parts(self, name: str, hashed: str) -> Parts:
        return Parts(self._unfinished.folder / name, hashed, self._samples.dataset.test_labels)

    def _lead(self) -> None:
        if self.record.complete and not self._unfinished.folder.exists():
            text = "the run is complete (overwrite makes it again)"
            self._tracker.report(self.record.experiment, "evaluate", text, milestone=True)
            return
        self._unfinished.begin()
        settings, before = self._settings, 0
        states = NetworkStates(self._unfinished.folder, self._fingerprint)
        draws = generator(settings.seed, "training")
        trainer = self._experiment.trainer(
            self._network, self._samples.dataset, draws, quick=settings.quick
        )
        for name, step in self._checkpoints:
            seconds = states.restore(name, self._network, trainer)
            if is_new := seconds is None:
                seconds = self._train(trainer, name, step - before)
                states.save(name, self._network, trainer, seconds)
            else:
                self._tracker.spend((step - before) * self._batch_cost)
            if is_new or not self._is_done(name):
                self.probe(name, step, seconds)
            before = step
        if all(is_finished(p) for c in self.record.checkpoints for p in c.probes):
            self._unfinished.remove()

    def _is_done(self, name: str) -> bool:
        """Tell whether the record has the checkpoint, and nothing of it is to be tried again."""
        known = [c for c in self.record.checkpoints if c.name == name]
        return bool(known) and all(map(is_finished, known[0].probes))

    def _train(self, trainer: Trainer, name: str, num_minibatches: int) -> float:
        """Train the network to its next checkpoint; return the seconds."""
        if not num_minibatches:
            return 0.0
        started = time.perf_counter()
        with self.training(name, num_minibatches) as on_batch:
            trainer.advance(num_minibatches, on_batch)
        return time.perf_counter() - started

    @contextlib.contextmanager
    def training(self, name: str, num_minibatches: int) -> Iterator[OnBatch]:
        """Report the block, which trains the network towards the checkpoint of this name.

        Yields:
            The callback that training reports to.
        """
        tracker, tenths = self._tracker, 0

        def on_batch(done: int, total: int, loss: float) -> None:
            nonlocal tenths
            crossed = 10 * done // total > tenths
            tenths = 10 * done // total
            text = f"minibatch {done:,} of {total:,}, loss {loss:.3f}"
            cost = done * self._batch_cost
            tracker.report(name, "train", text, begun=cost, milestone=crossed)

        tracker.report(name, "train", f"{num_minibatches:,} minibatches", milestone=True)
        yield on_batch
        tracker.spend(num_minibatches * self._batch_cost)

    def probe(self, name: str, step: int, train_seconds: float = 0.0) -> None:
        """Probe the network as it is; write record, tensors, figures and report."""
        settings, data = self._settings, self._samples.dataset
        self._tracker.report(name, "evaluate", "the network's own test error")
        started = time.perf_counter()
        rate = network_error_rate(self._network, data.test_images, data.test_labels)
        evaluated = time.perf_counter() - started
        labels = data.test_labels
        hashed = network_fingerprint(self._fingerprint, self._network)
        state = {key: value.cpu() for key, value in self._network.state_dict().items()}
        self._ranks.agreed((name, hashed, state))
        probed = self._probe_layers(name, self._parts(name, hashed))
        stages = {"train": train_seconds, **probed.stages}
        stages["evaluate"] += evaluated
        self._unfinished.clear()
        save_probes(settings.out, name, probed.probes, labels)
        path = settings.out / "networks" / f"{name}.safetensors"
        write_tensors(path, self._network.state_dict())
        record = _before(self.record, step)
        first = next((c.probes for c in record.checkpoints if c.step == 0), ())
        controls = of_records(
            settings.evaluation,
            ControlData(self._task.targets, labels),
            probed.records,
            untrained=first,
            untrained_seed=settings.seed,
        )
        failed = (f"At {name}: {note}" for note in failure_notes(probed.probes.values()))
        config = replace(record.config, notes=(*record.config.notes, *failed))
        self.record = replace(record, config=config).with_checkpoint(
            checkpoint_record(
                *(name, replace(probed, stages=stages), self._task),
                controls=tuple(controls),
                step=step,
                network_test_error_rate=rate,
            ),
            seconds=self._earlier.seconds + time.perf_counter() - self._started,
            peak_rss_bytes=max(self._earlier.peak_rss_bytes, peak_rss_bytes()),
            complete=name == self._checkpoints[-1][0],
        )
        self._experiment.draw(self.record, settings.out)
        write_report(self.record, settings.out)
        save_run(self.record, settings.out)  # last: a checkpoint that it has needs no more work
        self._unfinished.written()

    def _probe_layers(self, name: str, shelf: Shelf | None = None) -> Probed:
        settings, sgd = self._settings, self._settings.probe_training
        train, test = self._inputs()
        splits = [
            Split.read(Source(data, name, BATCH_SIZE), None)
            for data, name in (
                ((train, self._task.targets.labels), "train"),
                ((test, self._task.test_labels), "test"),
            )
        ]
        source = NetworkLayers(
            *(self._extractor(self._network), splits, self._points, None, settings.feature_bytes),
            rereads=settings.float64 is None and sgd is None,
            reuse_memory=True,
            strict=settings.strict,
        )
        if settings.float64:
            source = source.all_in_float64()
        unit = "passes" if sgd is None else "epochs"
        solves = 1 + len(settings.method.l2_path) if sgd is None else sgd.max_epochs
        meter = Meter(self._tracker, name, self._costs, num_solves=solves, unit=unit)
        return probe_layers(source, self._task, meter, shelf, self._ranks)

    def _make_task(self) -> Task:
        samples, settings = self._samples, self._settings
        labels, test_labels = samples.targets.labels, samples.dataset.test_labels
        config = replace(
            settings.method,
            seed=settings.seed,
            class_weight=numbered_class_weight(
                settings.method.class_weight, range(samples.targets.num_classes)
            ),
        )
        evaluation = settings.evaluation
        task = Task(torch.arange(len(labels)), samples.targets, test_labels, config, evaluation)
        if settings.probe_training is not None:
            by_sgd = partial(MinibatchProbe, settings.probe_training, config.tol, settings.seed)
            task = replace(task, method_of=by_sgd)
        inputs = None
        if {"random_features", "control_task"} & set(evaluation.controls):
            train, test = (x.flatten(1).to(settings.device) for x in self._inputs())
            inputs = train, test
        return with_plan(replace(task, strict=settings.strict), inputs)

    def _make_points(self) -> list[ProbePoint]:
        network: Any = self._network
        inputs = network.preprocess(self._samples.train_images[:2])
        example = example_batch(inputs)
        taps = dict(network.probe_points)
        points, _ = self._extractor(network).plan(taps, example, 0, math.inf, skip_unfit=False)
        # A figure's probe points are all flattened, which goes without saying.
        return [replace(point, stated=None) for point in points]

    def _extractor(self, network: nn.Module) -> Extractor:
        options = ExtractionOptions(reduce="flatten", tokens=None, batch_size=BATCH_SIZE)
        device = torch.device(self._settings.device)
        return Extractor(network, options, self._settings.seed, device)

    def _inputs(self) -> tuple[Tensor, Tensor]:
        """The network's inputs, training rows in the task's order."""
        network: Any = self._network  # a `Network`, which mypy can't say beside nn.Module
        samples = self._samples
        test = network.preprocess(samples.dataset.test_images)
        return network.preprocess(samples.train_images), test


def _before(run: RunRecord, step: int) -> RunRecord:
    """Give what the run has of earlier checkpoints."""
    kept = tuple(c for c in run.checkpoints if c.step < step)
    named = tuple(f"At {c.name}: " for c in kept)
    notes = tuple(note for note in run.config.notes if note.startswith(named))
    return replace(run, checkpoints=kept, config=replace(run.config, notes=notes))
