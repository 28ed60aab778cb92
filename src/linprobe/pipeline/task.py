"""Labels and settings that all layers of one network share."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from linprobe.core.solvers.base import Status
from linprobe.evaluation.metrics import constant_metrics
from linprobe.evaluation.options import EvaluationOptions
from linprobe.evaluation.plan import EvaluationPlan
from linprobe.evaluation.resampling import Resamples
from linprobe.evaluation.statistics import error_rate
from linprobe.pipeline.layer_probe import Probe
from linprobe.probes.base import ProbeMethod, Targets
from linprobe.probes.config import ProbeConfig
from linprobe.probes.softmax import SoftmaxProbe
from linprobe.records.schema import MajorityErrorRate, ProbeRecord
from linprobe.runtime.text import some

SetName = str | None
"""Name of a label set among several on the same rows; None: it is the only one."""


@dataclass(frozen=True)
class Task:
    """Labels, how they are split, and what is fitted to them: the same for every layer.

    Attributes:
        order: (n_rows,) int64, the training rows: those that are fitted, those held out, and past
            the end of `targets` those of weight zero, which count for nothing.
        targets: training labels in that order, and the rows' weights.
        test_labels: (n_test,) int64.
        config: numbers of the certified method.
        evaluation: what was asked for beside each probe.
        notes: what is unusual about the labels, a sentence each.
        plan: what is computed beside each probe.
        classes: names of the K classes; (): their numbers.
        method_of: gives each layer's method; default: `SoftmaxProbe` by `config`.
        strict: raise when a layer fails, instead of going on with the others.
        whole: of all rows, where this is the part of them that one process has.
        first_test_row: of this part, among those of the whole.
    """

    order: Tensor
    targets: Targets
    test_labels: Tensor
    config: ProbeConfig
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    notes: tuple[str, ...] = ()
    plan: EvaluationPlan = field(default_factory=EvaluationPlan)
    method_of: Callable[[str], ProbeMethod] | None = None
    classes: tuple[str, ...] = ()
    strict: bool = False
    whole: "Task | None" = None
    first_test_row: int = 0

    def method(self, layer: str) -> ProbeMethod:
        """The method of a layer's probe."""
        return SoftmaxProbe(self.config) if self.method_of is None else self.method_of(layer)

    @property
    def permutation(self) -> Tensor:
        """(n_rows,) int64: the row that each training row is written to."""
        permutation = torch.empty_like(self.order)
        permutation[self.order] = torch.arange(len(self.order))
        return permutation

    def rising(self) -> "Task":
        """Put the fitted rows in the order in which they were given, and so those held out.

        Their logits then stand together for rows that stand together on a disk.
        """
        end, count = self.targets.num_fit, self.num_train
        parts = self.order[:end].argsort(), end + self.order[end:count].argsort()
        place, weight = torch.cat(parts), self.targets.sample_weight
        targets = replace(
            self.targets,
            labels=self.targets.labels[place],
            sample_weight=None if weight is None else weight[place],
        )
        order = torch.cat([self.order[place], self.order[count:]])
        return replace(self, order=order, targets=targets)

    @property
    def num_train(self) -> int:
        """Training rows that count."""
        return len(self.targets.labels)

    @property
    def num_rows(self) -> int:
        """Rows of features of both splits, with those of weight zero."""
        return len(self.order) + len(self.test_labels)

    @property
    def majority_error_rate(self) -> MajorityErrorRate:
        """Error rates of the majority-class baseline."""
        return majority_error_rate(
            self.targets.labels, self.test_labels, self.targets.sample_weight
        )

    @property
    def majority_metrics(self) -> dict[str, float]:
        """Metrics of the majority-class baseline."""
        targets = self.targets
        return constant_metrics(
            *(targets.labels, self.test_labels, targets.num_classes), targets.sample_weight
        )

    @cached_property
    def resamples(self) -> Resamples:
        """Bootstrap samples of the test set, the same for every layer."""
        return Resamples(self.test_labels, self.config.seed)

    def on(self, device: torch.device) -> tuple[Targets, Tensor]:
        """Targets and test labels on a device."""
        return self.targets.to(device), self.test_labels.to(device)


def majority_error_rate(
    train_labels: Tensor, test_labels: Tensor, sample_weight: Tensor | None = None
) -> MajorityErrorRate:
    """Error rates of always predicting the training label of most samples, or most weight."""
    if sample_weight is None:
        commonest = train_labels.mode().values
        splits = (train_labels, test_labels)
        return MajorityErrorRate(*(error_rate(commonest.expand(len(y)), y) for y in splits))
    share = torch.bincount(train_labels, sample_weight / sample_weight.sum())
    commonest = share.argmax()
    of_test = error_rate(commonest.expand(len(test_labels)), test_labels)
    return MajorityErrorRate(1 - float(share.max()), of_test)


def failure_notes(probes: Iterable[Probe]) -> Iterator[str]:
    """Say which layers, or what beside their probes, an error took away; a sentence each."""
    for record in (probe.record for probe in probes):
        if record.status == Status.FAILED:
            yield f"Layer {record.layer!r} has no probe: {record.reason}."
        elif record.missing is not None:
            yield f"Layer {record.layer!r} has a probe but {record.missing}."


def _doubts(probe: Probe) -> Iterator[str]:
    """Say why a probe that was fitted may tell less than it seems to."""
    record, name = probe.record, f"Layer {probe.record.layer!r}"
    if record.status == Status.PRECISION_LIMIT:
        why = record.reason or "arithmetic ended before tol was reached; raise l2 or tol"
        yield f"{name}: {why}."
    elif record.status == Status.MAX_PASSES_REACHED:
        yield f"{name}: the passes over the features ran out before tol; raise l2 or tol."
    elif record.converged and _is_constant(probe):
        tried = record.native is not None or record.no_float64 is not None
        left = _left(record) if record.rounded and tried else ""
        yield f"{name} is constant on the training samples{left}."
    elif record.rounded:
        yield (
            f"{name}: what the probe uses varies little beyond the rounding of its activations"
            f"{_left(record)}."
        )


def _left(record: ProbeRecord) -> str:
    """Say what can be done about the rounding, or why nothing was."""
    if record.no_float64 is not None:
        return f", and was not read in float64: {record.no_float64}"
    if record.dtype == "float64":
        return ", in float64 too"
    return "; run the network in float64 to see what lies below it"


def _is_constant(probe: Probe) -> bool:
    """Tell a layer that has no scale of its own from one that tells nothing about the labels."""
    if probe.weight is None or probe.scale is None or bool(probe.weight.any()):
        return False
    return bool((probe.scale == 1).all())


def layer_notes(task: Task, probes: Iterable[Probe]) -> Iterator[str]:
    """Say what is unusual about layers, a sentence each."""
    probes = list(probes)
    yield from failure_notes(probes)
    wide: list[str] = []
    nonfinite: dict[str, list[str]] = {}
    for probe in probes:
        record, doubts = probe.record, list(_doubts(probe))
        yield from doubts
        if record.status == Status.NONFINITE_FEATURES:
            nonfinite.setdefault(record.reason or "", []).append(record.layer)
        elif record.status == Status.FAILED or doubts:
            continue
        elif record.num_features >= task.num_train:
            wide.append(record.layer)
    for reason, layers in nonfinite.items():
        one = f"Layer {layers[0]!r}" if len(layers) == 1 else f"{len(layers)} layers"
        which = "" if len(layers) == 1 else f" ({some(layers, 3)})"
        yield f"{one}{which}: {reason}. No probe was fitted."
    auto = task.config.scale == "auto"
    if scaled := [p.record.layer for p in probes if auto and p.record.scale == "feature"]:
        yield (
            f"A few features hold nearly all of the variance of {len(scaled)} "
            f"layer{'s' * (len(scaled) > 1)} ({some(scaled, 3)}): there each feature was "
            "divided by its own deviation; scale 'layer' divides all by one number."
        )
    if wide:
        yield (
            f"{len(wide)} layers have at least as many features as there are training samples "
            f"({task.num_train:,}): {some(wide, 3)}; any labels could be fitted there, so only "
            "the test error tells."
        )
