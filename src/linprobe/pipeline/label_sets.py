"""From labels, one set or several on the same rows, to what is to be fitted to them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from linprobe.data.labels import Classes, Names, number_classes
from linprobe.data.splits import check_class_masses
from linprobe.evaluation.options import EvaluationOptions
from linprobe.pipeline.task import SetName, Task
from linprobe.probes.base import Targets
from linprobe.probes.config import ProbeConfig
from linprobe.probes.holdout import (
    holdout_order,
    holdout_order_by_group,
    holdout_order_of_sets,
    num_held_out,
)
from linprobe.probes.weights import numbered_class_weight
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.numbers import check_seed
from linprobe.runtime.randomness import generator
from linprobe.runtime.text import some


@dataclass(frozen=True)
class LabelSet:
    """Labels of both splits, as they were read.

    Attributes:
        train: (n_train,) int64.
        test: (n_test,) int64.
        names: of labels that aren't simply numbers, train and test.
    """

    train: Tensor
    test: Tensor
    names: tuple[Names, Names] = ({}, {})


@contextmanager
def naming_set(name: str | None) -> Iterator[None]:
    """Say of an error which of several label sets it is about; None: there is but one."""
    try:
        yield
    except LinprobeError as error:
        if name is None:
            raise
        raise LinprobeError(f"label set {name!r}: {error}") from error


def make_tasks(
    label_sets: Mapping[SetName, LabelSet],
    *,
    groups: Tensor | None,
    config: ProbeConfig,
    evaluation: EvaluationOptions,
    seed: int,
    num_classes: int | None = None,
    sample_weight: Tensor | None = None,
) -> dict[SetName, Task]:
    """Check the labels and settle which training rows are held out, the same for all label sets.

    Args:
        label_sets: of the same rows, by name; None is the name of a single one.
        groups: (n_train,) int64; no group is both fitted and held out. None: each row for itself.
        config: numbers of the method; its seed is replaced by `seed`.
        evaluation: what is asked for beside each probe.
        seed: of the held-out rows and the solver.
        num_classes: K, of labels that are class numbers; None: as many as occur, numbered in
            sorted order.
        sample_weight: (n_train,) float64, from 0 on; rows of weight zero are as good as absent.

    Raises:
        LinprobeError: Labels, groups, weights or numbers that can't be used.
    """
    seed, found = check_seed(seed), dict[SetName, Classes]()
    for name, labels in label_sets.items():
        with naming_set(name):
            found[name] = number_classes(labels.train, labels.test, labels.names, num_classes)
            if sample_weight is not None:
                check_class_masses(found[name].train, sample_weight, found[name].names)
    rows = torch.arange(len(next(iter(found.values())).train))
    absent = rows[:0]
    if sample_weight is not None:
        rows, absent = rows[sample_weight > 0], rows[sample_weight == 0]
        groups = None if groups is None else groups[rows]
    counted = [classes.train[rows] for classes in found.values()]
    order, held = _hold_out(counted, groups, config.validation_fraction, seed)
    order = rows[order]
    weight = None if sample_weight is None else sample_weight[order]
    tasks: dict[SetName, Task] = {}
    for name, of in found.items():
        with naming_set(name):
            own = replace(
                config,
                validation_fraction=held / len(order),  # the share that rounds to so many rows
                seed=seed,
                class_weight=numbered_class_weight(config.class_weight, of.names),
            )
        notes = (
            *of.notes,
            *_unseen_labels(of.train[rows], of.test, of.names),
            *_few_labels(of.test, of.names),
        )
        targets = Targets(of.train[order], len(of.names), held, weight)
        placed = torch.cat([order, absent])
        tasks[name] = Task(placed, targets, of.test, own, evaluation, notes, classes=of.names)
    return tasks


def _hold_out(
    label_sets: Sequence[Tensor], groups: Tensor | None, fraction: float, seed: int
) -> tuple[Tensor, int]:
    """Order the rows, those held out last, and count these."""
    if len(label_sets) > 1:
        draws = generator(seed, "holdout")
        if groups is not None:
            return holdout_order_by_group(label_sets, groups, fraction, draws)
        return holdout_order_of_sets(label_sets, fraction, draws)
    labels = label_sets[0]
    # Each class keeps a sample to be fitted on; where classes are tiny, fewer are held out.
    spare = len(labels) - len(labels.unique())
    if not spare:
        raise LinprobeError(
            "every training label stands only once, so no sample can be held out for choosing l2; "
            "expected several samples for each class (are these the numbers of the samples?)"
        )
    fraction, draws = min(fraction, spare / len(labels)), generator(seed, "holdout")
    if groups is not None:
        return holdout_order_by_group(labels, groups, fraction, draws)
    order = holdout_order(labels, fraction, draws)
    return order, num_held_out(len(order), fraction)


def _unseen_labels(
    train_labels: Tensor, test_labels: Tensor, classes: tuple[str, ...]
) -> Iterator[str]:
    missing = sorted(set(test_labels.tolist()) - set(train_labels.tolist()))
    if missing:
        rows = int(torch.isin(test_labels, torch.tensor(missing)).sum())
        yield (
            f"No training sample has label {some([classes[k] for k in missing])}: {rows} test "
            "samples with it count as errors, and the test cross-entropy is infinite."
        )


def _few_labels(test_labels: Tensor, names: tuple[str, ...]) -> Iterator[str]:
    classes, counts = test_labels.unique(return_counts=True)
    if len(classes) == 1:
        yield (
            f"All test samples are of class {names[int(classes[0])]}: AUROC, average precision and "
            "the intervals of metrics are unknown."
        )
    elif int(counts.min()) == 1:
        single = [names[k] for k in classes[counts == 1].tolist()]
        yield (
            f"A single test sample is of class {some(single)}: metrics other than the error "
            "have no intervals, which take two samples of every class in the test set."
        )
