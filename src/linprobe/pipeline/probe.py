"""`linprobe.probe`: certified probes of any network."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from linprobe.activations.extract import Extractor
from linprobe.activations.inference import ONE_AT_A_TIME, lacks_values, network_device
from linprobe.activations.layers import (
    Layers,
    choose_layers,
    glob_notes,
    numbers_as_names,
    survey,
    unreached,
)
from linprobe.activations.notes import plan_notes
from linprobe.activations.options import ExtractionOptions
from linprobe.activations.pooling import AUTO, Reducer
from linprobe.activations.reading import check_layout, layout_text
from linprobe.activations.rules import ProbePoint
from linprobe.activations.taps import modules_by_path
from linprobe.activations.tokens import check_tokens
from linprobe.core.features import scratch_parent
from linprobe.data.copies import copies_note
from linprobe.data.inputs import Source
from linprobe.data.splits import Split, read_groups, read_weights
from linprobe.evaluation.controls import Pair
from linprobe.evaluation.options import EvaluationOptions
from linprobe.evaluation.untrained import untrained_network
from linprobe.pipeline.controls import controls_of_task, with_plan
from linprobe.pipeline.dealing import DIFFERENT, Distribute, check_distribute
from linprobe.pipeline.deprecated import grouped_options
from linprobe.pipeline.engine import Shelf, probe_layers
from linprobe.pipeline.folder import RunFolder, hashed_settings, run_folder
from linprobe.pipeline.label_sets import LabelSet, make_tasks
from linprobe.pipeline.network_layers import NetworkLayers
from linprobe.pipeline.progress import Progress, progress_shown, single_meter
from linprobe.pipeline.report import ProbeReport, make_report
from linprobe.pipeline.task import Task
from linprobe.probes.config import ProbeConfig
from linprobe.records.config import ExtractionRecord
from linprobe.records.schema import ProbeRecord
from linprobe.runtime.defaults import own_defaults
from linprobe.runtime.devices import find_device, free_bytes, solving_device
from linprobe.runtime.distributed import ALONE, shared
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.fingerprint import Fingerprint
from linprobe.runtime.memory import FEATURE_SHARE
from linprobe.runtime.numbers import check_seed
from linprobe.runtime.progress import ignore
from linprobe.runtime.randomness import seeded

_EXAMPLE = 3  # samples of the example that shapes are read from; batches have other sizes
_INPUT_TAP = ":in"  # of the network itself


@own_defaults()
def probe(
    network: nn.Module,
    train: object,
    test: object,
    *,
    layers: Layers | int | Sequence[str | int] = None,
    groups: object = None,
    sample_weight: object = None,
    seed: int = 0,
    method: ProbeConfig | None = None,
    extraction: ExtractionOptions | None = None,
    evaluation: EvaluationOptions | None = None,
    out: str | Path | RunFolder | None = None,
    progress: Progress = None,
    distribute: Distribute = "layers",
    **deprecated: Any,
) -> ProbeReport:
    """Fit a linear probe at layers of a network, each to a certified optimum.

    Args:
        network: any module; evaluated, and left as it was, on the device that it is on.
        train: training data: ``(x, y)`` arrays or tensors, a dict of them with "labels", a
            Dataset, a DataLoader (read without shuffling), or a list of batches; see
            `linprobe.data.inputs`. It is read once for the labels, then once for each group of
            layers that the memory holds.
        test: test data of the same kind; looked at once by each probe.
        layers: a name, number or pattern (``encoder.layer.*``, ``layer.{0..11}``; a star ends at a
            dot, ``**`` doesn't), a list of these, a class of modules, a predicate
            ``f(name, module)``, or None: every leaf that computes something. Names are those of
            `linprobe.layers`, and ``name:in`` for a module's input.
        groups: one group a training sample, or a tuple (of train, of test): no group is both
            fitted on and held out, or in train and test.
        sample_weight: a number from 0 on for each training sample, in the order of the data; its
            tokens have it under ``tokens="all"``. A whole number is as good as that many copies
            (beside the choice of what is held out); test samples count once each.
        seed: of the held-out samples, the solver, random reducers and the data's randomness.
        method: penalties, tolerance and other numbers of the probes.
        extraction: how the network is run and its activations become features.
        evaluation: controls and description length to compute beside each probe.
        out: folder to write the run to, each layer when it is done. Called again with the same
            data, network and settings, `probe` goes on from there, whatever ended it before. None:
            nothing is written.
        progress: None: shown where somebody can see it and the call takes more than two seconds;
            True or False; or a function that takes `linprobe.runtime.progress.Event`, called by
            several threads, one at a time.
        distribute: "layers": where torchrun, SLURM or an initialised process group says that there
            are several processes, which make the same call, layers are dealt to them; each gets
            the whole report, and the first one writes and prints. None: this process alone.
        **deprecated: options by their old keywords, for this release.

    Raises:
        LinprobeError: Anything that can't be used; the message says what to do.
    """
    chosen = grouped_options(
        "probe",
        deprecated,
        {
            "method": (method, ProbeConfig),
            "extraction": (extraction, ExtractionOptions),
            "evaluation": (evaluation, EvaluationOptions),
        },
    )
    seed = check_seed(seed)
    check_distribute(distribute)
    _check(network, chosen["extraction"])
    folder = run_folder(out)
    with ONE_AT_A_TIME, ExitStack() as stack:
        kept_in = None if folder is None else folder.path
        ranks = stack.enter_context(shared(distribute is not None, kept_in))
        show = ranks.watched(stack.enter_context(progress_shown(progress, ranks)))
        if folder is not None:
            stack.enter_context(folder.locked(ranks))
        stack.enter_context(seeded(seed))
        layers = numbers_as_names(layers)
        hashed = None if folder is None and ranks.size == 1 else Fingerprint()
        run = _Run(network, (train, test), groups, sample_weight, seed, hashed, **chosen)
        run.ranks = ranks
        if hashed is not None:
            hashed.add(layers, *run.settings())
            ranks.same(hashed.text, DIFFERENT)
        if folder is None or hashed is None:
            return run.report(layers, show)
        run.scratch = scratch_parent(folder.path.absolute().parent)
        kept = folder.open(hashed.text, run.task.test_labels, ranks)
        if kept is not None:
            return kept
        return folder.finish(run.report(layers, show, folder), ranks)


class _Run:
    """One call of `probe`: labels are read, nothing else is computed yet."""

    def __init__(
        self,
        network: nn.Module,
        data: tuple[object, object],
        groups: object,
        sample_weight: object,
        seed: int,
        hashed: Fingerprint | None,
        method: ProbeConfig,
        extraction: ExtractionOptions,
        evaluation: EvaluationOptions,
    ) -> None:
        self.started = time.perf_counter()
        # Made first: what can't be made is refused before any work.
        self.untrained: nn.Module | None = None
        self.notes: tuple[str, ...] = ()
        if "untrained" in evaluation.controls:
            self.untrained, note = untrained_network(network, seed, evaluation.untrained)
            self.notes = (note,)
        self.network, self.seed = network, seed
        self.grouped, self.weighted = groups is not None, sample_weight is not None
        splits = []
        for name, part in zip(("train", "test"), data, strict=True):
            source = Source(part, name, extraction.batch_size)
            source.hashed = hashed
            splits.append(_read(source, extraction.tokens, seed))
        self.splits = [replace(split, hashes=[]) for split in splits]
        task = _task_of(
            *(splits, groups, sample_weight, extraction, seed),
            config=method,
            evaluation=evaluation,
        )
        self.task = replace(task, strict=extraction.strict)
        wanted = extraction.device
        wished = network_device(network) if wanted is None else find_device(wanted)
        self.device, notes = solving_device(wished)
        self.notes += notes
        self.extractor = Extractor(network, extraction, seed, self.device)
        budget = extraction.memory_bytes
        self.budget = FEATURE_SHARE * free_bytes(self.device) if budget is None else budget
        self.scratch, self.ranks = scratch_parent(), ALONE

    def settings(self) -> Iterator[object]:
        """Give all that the probes depend on, beside the data and the choice of layers."""
        yield from hashed_settings(self.task)
        yield self.network
        yield replace(self.extractor.options, memory_bytes=None, device=None, strict=False)
        yield str(self.device)

    def report(self, layers: Layers, show: Any, shelf: Shelf | None = None) -> ProbeReport:
        """Probe the layers and put the report together."""
        points, notes = self._plan(layers)
        other = self._untrained(points)
        task = replace(self.task, notes=(*self.task.notes, *self.notes, *notes))
        inputs = self._inputs() if task.evaluation.needs_inputs else None
        task = with_plan(task, inputs)
        source = self._source(self.extractor, points)
        meter = single_meter(show, source.num_features, task)
        probed = probe_layers(source, task, meter, shelf, self.ranks)

        def untrained(plain: Task) -> tuple[ProbeRecord, ...]:
            assert other is not None  # the control was asked for
            if other.network is not plain.evaluation.untrained:  # the user's own stays where it is
                other.network.to(network_device(self.network))
            silent = single_meter(self.ranks.watched(ignore), source.num_features, plain)
            others = self._source(other, points)
            return probe_layers(others, plain, silent, ranks=self.ranks).records

        controls, failed = controls_of_task(task, inputs, untrained)
        task = replace(task, notes=(*task.notes, *failed, *self._copies()))
        origin = (self.splits[0].source.kind, self._record(), str(self.device), self.started)
        return make_report(task, probed, *origin, controls)

    def _copies(self) -> Iterator[str]:
        train, test = (split.hashes for split in self.splits)
        if train and test:  # read in this call
            yield from copies_note(np.concatenate(train), np.concatenate(test), "inputs")

    def _untrained(self, points: list[ProbePoint]) -> Extractor | None:
        """Make what runs the untrained network, of layers as `points`; None: it isn't wanted."""
        if self.untrained is None:
            return None
        other = replace(self.extractor, network=self.untrained)
        if self.task.evaluation.untrained is not None:
            batch = self.splits[0].source.first().head(_EXAMPLE - 1)
            taps, rows = {point.layer: point.tap for point in points}, self.task.num_rows
            try:
                found, _ = other.plan(taps, batch, rows, self.budget, skip_unfit=False, spills=True)
            except LinprobeError as error:
                raise LinprobeError(f"the untrained network can't be probed: {error}") from error
            for point, its in zip(points, found, strict=True):
                if its.num_features != point.num_features:
                    raise LinprobeError(
                        f"the untrained network gives {its.num_features} features at layer "
                        f"{point.layer!r}, the network {point.num_features}; expected the same "
                        "network as before training"
                    )
        return other

    def _source(self, extractor: Extractor, points: list[ProbePoint]) -> NetworkLayers:
        float64 = extractor.options.float64
        source = NetworkLayers(
            *(extractor, self.splits, points, self.task.permutation, self.budget),
            rereads=float64 is None,
            scratch=self.scratch,
            strict=self.task.strict,
            num_classes=self.task.targets.num_classes,
        )
        return source.all_in_float64() if float64 else source

    def _record(self) -> ExtractionRecord:
        options = self.extractor.options
        return ExtractionRecord(
            network=type(modules_by_path(self.network)[""]).__name__,  # not its compiled wrapper
            reduce=options.reduce,
            tokens=options.tokens,
            layout=layout_text(options.layout),
            groups=self.grouped,
            sample_weight=self.weighted,
            batch_size=options.batch_size,
            memory_bytes=self.budget,
            float64=options.float64,
        )

    def _plan(self, layers: Layers) -> tuple[list[ProbePoint], list[str]]:
        """The points to probe, and a note on those that can't be."""
        batch = self.splits[0].source.first()
        table = survey(self.network, batch.head(_EXAMPLE), self.extractor.options.forward)
        names = choose_layers(self.network, table, layers)
        # Another number of samples: a shape that has both by chance has no dimension of samples.
        batch = batch.head(_EXAMPLE - 1)
        points, left_out = self.extractor.plan(
            {name: name for name in names},
            batch,
            self.task.num_rows,
            self.budget,
            skip_unfit=layers is None,
            spills=True,
        )
        missed = unreached(self.network, table) if layers is None else []
        notes = *glob_notes(table, layers), *plan_notes(points, left_out, missed)
        return points, list(notes)

    def _inputs(self) -> Pair:
        """The network's inputs, flattened: train in the task's order, and test."""
        options = self.extractor.options
        if options.tokens == "all":
            raise LinprobeError(
                "controls that start from the network's inputs need a row for each sample; with "
                "tokens='all' leave out 'random_features' and 'input', and give types"
            )
        whole = replace(
            self.extractor, options=replace(options, reduce="flatten", tokens=None, layout=None)
        )
        batch = self.splits[0].source.first().head(_EXAMPLE)
        num_rows, tap = self.task.num_rows, {_INPUT_TAP: _INPUT_TAP}
        points, _ = whole.plan(tap, batch, num_rows, self.budget, skip_unfit=False)
        train = whole.extract(self.splits[0], points, self.task.permutation)[_INPUT_TAP]
        return train, whole.extract(self.splits[1], points)[_INPUT_TAP]


def _read(source: Source, tokens: str | int | None, seed: int) -> Split:
    with seeded(seed):  # as at each pass of the network
        return Split.read(source, tokens)


def _check(network: object, extraction: ExtractionOptions) -> None:
    if not isinstance(network, nn.Module):
        raise LinprobeError(
            f"network is a {type(network).__name__}; expected a torch.nn.Module (for features "
            "that are at hand: linprobe.fit_probes)"
        )
    if lacks_values(network):
        raise LinprobeError(
            "the network has parameters on the device 'meta', without values; expected one that "
            "is loaded"
        )
    check_tokens(extraction.tokens)
    check_layout(extraction.layout)
    if extraction.reduce != AUTO:
        Reducer.parse(extraction.reduce)


def _task_of(
    splits: list[Split],
    groups: object,
    sample_weight: object,
    extraction: ExtractionOptions,
    seed: int,
    **options: Any,
) -> Task:
    train, test = splits
    numbered: Tensor | None = read_groups(groups, train.num_samples, test.num_samples)
    if numbered is not None:
        numbered = numbered[train.sequence]
    elif extraction.tokens == "all":
        numbered = train.sequence  # tokens of one sequence are no independent samples
    weight = read_weights(sample_weight, train.num_samples)
    labels = LabelSet(train.labels, test.labels, (train.names, test.names))
    return make_tasks(
        {None: labels},
        groups=numbered,
        sample_weight=None if weight is None else weight[train.sequence],
        seed=seed,
        **options,
    )[None]
