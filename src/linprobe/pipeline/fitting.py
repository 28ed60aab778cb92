"""Probes of layers whose features are at hand: what all of them share, then one at a time."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from linprobe.activations.rules import Reduction
from linprobe.core.solvers.base import Status
from linprobe.data.splits import check_labels
from linprobe.evaluation.plan import Extras
from linprobe.evaluation.statistics import error_rate
from linprobe.pipeline.recording import evaluate_probe, probe_record
from linprobe.pipeline.report import Probe
from linprobe.probes.holdout import holdout_order, holdout_order_by_group, num_held_out
from linprobe.probes.protocol import DEFAULT_L2_PATH, OnEvent, ProbeConfig, fit_probe
from linprobe.records.schema import MajorityErrorRate
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.memory import is_out_of_memory
from linprobe.runtime.randomness import generator
from linprobe.runtime.text import size_text

Penalty = float | Sequence[float] | None


@dataclass(frozen=True)
class Task:
    """The labels, and how they are split and fitted: the same for every layer.

    Attributes:
        order: (n_train,) int64, the training rows with those held out last.
        train_labels: (n_train,) int64, in that order.
        test_labels: (n_test,) int64.
        num_classes: K.
        config: the protocol's numbers.
        notes: what is unusual about the labels, a sentence each.
        extras: what is computed beside each probe.
    """

    order: Tensor
    train_labels: Tensor
    test_labels: Tensor
    num_classes: int
    config: ProbeConfig
    notes: tuple[str, ...]
    extras: Extras = field(default_factory=Extras)

    @property
    def place(self) -> Tensor:
        """(n_train,) int64: where each training row goes."""
        place = torch.empty_like(self.order)
        place[self.order] = torch.arange(len(self.order))
        return place

    @property
    def majority_error_rate(self) -> MajorityErrorRate:
        """Error rate of the majority-class baseline."""
        commonest = self.train_labels.mode().values
        splits = (self.train_labels, self.test_labels)
        return MajorityErrorRate(*(error_rate(commonest.expand(len(y)), y) for y in splits))


def make_task(
    train_labels: Tensor,
    test_labels: Tensor,
    *,
    groups: Tensor | None,
    l2: Penalty,
    tol: float,
    seed: int,
    num_classes: int | None = None,
) -> Task:
    """Check the labels and settle which training rows are held out.

    Args:
        train_labels: (n_train,) int64.
        test_labels: (n_test,) int64.
        groups: (n_train,) int64; no group is both fitted and held out. None: each row for itself.
        l2: one penalty, several to choose from, or None for the protocol's own path.
        tol: duality gap at which a probe counts as converged, nats.
        seed: of the held-out rows and the solver.
        num_classes: K; default: one more than the largest label.

    Raises:
        LinprobeError: Labels, groups or numbers that can't be used.
    """
    check_seed(seed)
    count = check_labels(train_labels, test_labels, num_classes)
    config = ProbeConfig(l2_path=_path(l2), tol=tol, seed=seed)
    # Each class keeps a sample to be fitted on; where classes are tiny, fewer are held out.
    spare = len(train_labels) - len(train_labels.unique())
    if not spare:
        raise LinprobeError(
            "every training label stands only once, so no sample can be held out for choosing l2; "
            "expected several samples for each class (are these the numbers of the samples?)"
        )
    fraction = min(config.validation_fraction, spare / len(train_labels))
    draws = generator(seed, "holdout")
    if groups is None:
        order = holdout_order(train_labels, fraction, draws)
        held = num_held_out(len(order), fraction)
    else:
        order, held = holdout_order_by_group(train_labels, groups, fraction, draws)
    # The share that the protocol rounds to exactly this many rows.
    config = replace(config, validation_fraction=held / len(order))
    missing = sorted(set(test_labels.tolist()) - set(train_labels.tolist()))
    notes = []
    if missing:
        some = ", ".join(map(str, missing[:5])) + (" ..." if len(missing) > 5 else "")
        rows = int(torch.isin(test_labels, torch.tensor(missing)).sum())
        notes.append(
            f"No training sample has label {some}: {rows} test samples with it count as errors, "
            "and the test cross-entropy is infinite."
        )
    return Task(order, train_labels[order], test_labels, count, config, tuple(notes))


def check_seed(seed: object) -> None:
    """Refuse a seed that is no whole number from 0 on, with a `LinprobeError`."""
    if type(seed) is not int or seed < 0:
        raise LinprobeError(f"seed is {seed!r}; expected a whole number from 0 on")


def fit_layer(
    task: Task,
    layer: str,
    index: int,
    train: Tensor,
    test: Tensor,
    *,
    stated: str | None = None,
    columns: Tensor | None = None,
    on_event: OnEvent | None = None,
) -> Probe:
    """Fit the probe of one layer.

    Args:
        task: labels and settings.
        layer: its name.
        index: its place.
        train: (n_train, n_features) float32 in the task's order; overwritten.
        test: (n_test, n_features).
        stated: how the features were reduced, as `Reduction.stated` says it.
        columns: which coordinates a random reducer kept.
        on_event: as `fit_probe` takes it.

    Raises:
        LinprobeError: Features that can't be used; the message names the layer.
    """
    labels = task.train_labels.to(train.device), task.test_labels.to(train.device)
    try:
        fitted = fit_probe(
            train,
            labels[0],
            test,
            labels[1],
            task.config,
            num_classes=task.num_classes,
            on_event=on_event,
        )
    except LinprobeError as error:
        raise LinprobeError(f"layer {layer!r}: {error}") from error
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise LinprobeError(
            f"layer {layer!r}: no memory left to solve {train.shape[1]:,} features "
            f"({size_text(train.nbytes + test.nbytes)}); lower memory_bytes, or use "
            f"reduce='random:{max(1, train.shape[1] // 4)}'"
        ) from error
    if len(task.config.l2_path) == 1:
        fitted = replace(fitted, l2_at_edge=False)  # there was nothing to choose from
    shown = evaluate_probe(fitted, *labels)
    evaluation, controls = task.extras.of_layer(
        *(layer, fitted, shown and shown[0], (train, labels[0]), test, task.config, on_event)
    )
    record = probe_record(layer, index, fitted, len(labels[1]), evaluation, reducer=stated)
    return Probe(
        record=record,
        weight=fitted.weight.cpu(),
        bias=fitted.bias.cpu(),
        reduction=Reduction.parse(stated),
        columns=columns,
        predictions=shown and shown[1],
        controls=controls,
    )


def layer_notes(task: Task, probes: Iterable[Probe]) -> Iterator[str]:
    """What is unusual about layers, a sentence each."""
    wide = []
    for probe in probes:
        record, name = probe.record, f"Layer {probe.record.layer!r}"
        if record.status == Status.NONFINITE_FEATURES:
            yield f"{name} holds NaN or infinity: no probe was fitted."
        elif record.status == Status.PRECISION_LIMIT:
            yield f"{name}: arithmetic ended before tol was reached; raise l2 or tol."
        elif record.status == Status.MAX_PASSES_REACHED:
            yield f"{name}: the passes over the features ran out before tol; raise l2 or tol."
        elif not bool(probe.weight.any()):
            yield f"{name} is constant on the training samples."
        elif record.rounded:
            yield (
                f"{name} varies little beyond the rounding of its activations; run the network "
                "in float64 to see what lies below it."
            )
        elif record.num_features >= len(task.order):
            wide.append(record.layer)
    if wide:
        some = ", ".join(wide[:3]) + (" ..." if len(wide) > 3 else "")
        yield (
            f"{len(wide)} layers have at least as many features as there are training samples "
            f"({len(task.order):,}): {some}; any labels could be fitted there, so only the test "
            "error tells."
        )


def _path(l2: Penalty) -> tuple[float, ...]:
    if l2 is None:
        return DEFAULT_L2_PATH
    values = [l2] if isinstance(l2, int | float) else list(l2)
    try:
        path = tuple(sorted({float(value) for value in values}, reverse=True))
    except (TypeError, ValueError) as error:
        raise LinprobeError(f"l2 is {l2!r}; expected a positive number or several") from error
    if not path or not all(0 < value < math.inf for value in path):
        raise LinprobeError(f"l2 is {l2!r}; expected a positive number or several")
    return path
