"""Controls: what a probe's error is to be compared with before it is believed.

Each control of a layer is fitted by the same protocol as the layer's probe: same path of `l2`,
same choice on held-out rows, same certificate.

- ``shuffled_labels``: training labels permuted, test labels true. What is better than chance here
  comes from the protocol, not from the features.
- ``control_task``: Hewitt & Liang, Designing and interpreting probes with control tasks (EMNLP
  2019). Every sample has a type, every type gets a label drawn uniformly, and the probe must learn
  type by type. Selectivity is the accuracy on the task minus that on the control task: a layer on
  which arbitrary labels are as easy shows capacity, not structure. For images without types, the
  type is the sample's cluster among `TYPES_PER_CLASS` times K clusters of the input (our choice).
- ``random_features``: ``relu(x A)`` of the network's input, as many of them as the layer has, A
  with independent normal entries. What a layer of that width gives without any learning.
- ``untrained``: the same layer before training. ``input``: a probe of the input. ``majority``: the
  commonest class of the training labels, no probe at all.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from linprobe.evaluation.statistics import error_rate, wilson_interval
from linprobe.probes.holdout import num_held_out
from linprobe.probes.protocol import OnEvent, ProbeConfig, fit_probe
from linprobe.records.evidence import CONTROLS, ControlRecord
from linprobe.records.schema import ProbeRecord
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.randomness import generator

OF_LAYERS = ("shuffled_labels", "control_task", "random_features")
TYPES_PER_CLASS = 10
_FIT_ROWS = 10_000

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class ControlConfig:
    """Which controls, and how often.

    Attributes:
        names: of `CONTROLS`.
        repeats: draws of each random one.
        seed: of the first draw; the next ones count up from it.
    """

    names: tuple[str, ...] = ()
    repeats: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in CONTROLS:
                known = ", ".join(CONTROLS)
                raise LinprobeError(f"there is no control {name!r}; expected some of: {known}")
        if self.repeats < 1:
            raise LinprobeError(f"control repeats is {self.repeats}; expected at least 1")


@dataclass(frozen=True)
class Task:
    """What the controls of all layers share; rows are those of the features.

    Attributes:
        train_labels: (n_train,) int64, held-out rows last, as for `fit_probe`.
        test_labels: (n_test,) int64.
        num_classes: K.
        inputs: of the network, flattened: (n_train, n_inputs) and (n_test, n_inputs) floating
            point; None: not known.
        types: of the control task, (n_train,) and (n_test,) int64 from 0 on; None: clusters of
            the inputs.
    """

    train_labels: Tensor
    test_labels: Tensor
    num_classes: int
    inputs: Pair | None = None
    types: Pair | None = None


class Controls:
    """Runs the controls of one task layer by layer; a draw is the same for all layers.

    Args:
        config: which ones.
        task: labels, inputs and types.
        probe: the protocol's numbers.

    Raises:
        LinprobeError: A control needs inputs or types that the task does not have.
    """

    def __init__(self, config: ControlConfig, task: Task, probe: ProbeConfig) -> None:
        self.config, self.task, self.probe = config, task, probe
        types_missing = "control_task" in config.names and task.types is None
        if task.inputs is None and (types_missing or "random_features" in config.names):
            raise LinprobeError(
                "the controls 'random_features' and, without types, 'control_task' start from "
                "the network's inputs, which are not known here; give them, or leave these out"
            )
        self._types = task.types
        if types_missing and task.inputs is not None:
            num_types = min(TYPES_PER_CLASS * task.num_classes, len(task.inputs[0]))
            self._types = input_types(*task.inputs, num_types, config.seed)

    @property
    def fits_per_layer(self) -> int:
        """Probes that `of_layer` fits."""
        return self.config.repeats * sum(name in OF_LAYERS for name in self.config.names)

    def of_layer(
        self,
        layer: str,
        train_features: Tensor,
        test_features: Tensor,
        test_error_rate: float,
        on_event: OnEvent | None = None,
    ) -> list[ControlRecord]:
        """Fit the controls that belong to one layer.

        Args:
            layer: its name.
            train_features: (n_train, n_features) finite; OVERWRITTEN by its standardised form.
            test_features: (n_test, n_features), mapped as `train_features` is.
            test_error_rate: of the layer's probe, for the selectivity.
            on_event: called after each fit, with the control's name as stage.
        """
        found = []
        for name in (name for name in self.config.names if name in OF_LAYERS):
            for repeat in range(self.config.repeats):
                seed = self.config.seed + repeat
                (x, x_test), labels = self._drawn(name, seed, train_features, test_features)
                y, y_test = (part.to(x.device) for part in labels)
                config = replace(self.probe, seed=seed)
                num_classes = self.task.num_classes
                fitted = fit_probe(x, y, x_test, y_test, config, num_classes=num_classes)
                rate = fitted.test_error_rate
                record = ControlRecord(
                    *(name, layer, repeat, seed, rate, _interval(rate, len(y_test))),
                    *(fitted.l2, fitted.duality_gap, str(fitted.status)),
                )
                if name == "control_task":
                    record = replace(record, selectivity=rate - test_error_rate)
                found.append(record)
                if on_event is not None:
                    stage = f"{name} {repeat + 1} of {self.config.repeats}"
                    on_event(stage, fitted.l2, fitted.num_passes, fitted.duality_gap)
        return found

    def _drawn(self, name: str, seed: int, train: Tensor, test: Tensor) -> tuple[Pair, Pair]:
        """Features and labels of one draw of a control, each of both splits."""
        if name == "control_task":
            return (train, test), self.control_labels(seed)
        if name == "shuffled_labels":
            return (train, test), (self.shuffled(seed), self.task.test_labels)
        labels = (self.task.train_labels, self.task.test_labels)
        return self.random_features(train.shape[1], seed), labels

    def shuffled(self, seed: int) -> Tensor:
        """Training labels permuted, the held-out rows among themselves: (n_train,) int64.

        So each part keeps its share of every class.
        """
        labels, draw = self.task.train_labels, generator(seed, "shuffled_labels")
        held_out = num_held_out(len(labels), self.probe.validation_fraction)
        parts = labels.split([len(labels) - held_out, held_out])
        orders = [torch.randperm(len(part), generator=draw).to(part.device) for part in parts]
        return torch.cat([part[order] for part, order in zip(parts, orders, strict=True)])

    def control_labels(self, seed: int) -> Pair:
        """Labels of the control task, (n_train,) and (n_test,) int64: one for each type.

        Types that no row in use for fitting has take the label of a type that some row has, so
        that no class stands in the held-out rows only.
        """
        assert self._types is not None
        train, test = self._types
        held_out = num_held_out(len(train), self.probe.validation_fraction)
        draw = generator(seed, "control_task")
        num_types = int(max(train.max(), test.max())) + 1
        label = torch.randint(self.task.num_classes, (num_types,), generator=draw)
        seen = train[: len(train) - held_out].unique().cpu()
        unseen = torch.ones(num_types, dtype=torch.bool).index_fill_(0, seen, False)
        lent = seen[torch.randint(len(seen), (num_types,), generator=draw)]
        label = torch.where(unseen, label[lent], label).to(train.device)
        return label[train], label[test]

    def random_features(self, width: int, seed: int) -> Pair:
        """``relu(x A)`` of both splits, `width` of them; x is centred and of mean square 1."""
        assert self.task.inputs is not None
        train, test = self.task.inputs
        mean = train.mean(0)
        scale = (train - mean).square().sum(1).mean().rsqrt().nan_to_num(posinf=1.0)
        draw = generator(seed, "random_features")
        projection = torch.randn(train.shape[1], width, generator=draw).to(train)
        train, test = (((x - mean) * scale @ projection).relu_() for x in (train, test))
        return train, test


def input_types(train: Tensor, test: Tensor, num_types: int, seed: int) -> Pair:
    """Group the inputs of both splits by k-means on at most 10,000 rows of the first.

    Args:
        train: (n_train, n_inputs) floating point.
        test: (n_test, n_inputs).
        num_types: number of clusters, at most n_train.
        seed: of the choice of rows and of the first centres.

    Returns:
        The cluster of each row, (n_train,) and (n_test,) int64, in 0..num_types-1.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    draw = generator(seed, "types")
    rows = torch.randperm(len(train), generator=draw)[: max(_FIT_ROWS, num_types)]
    means = KMeans(num_types, n_init=1, random_state=draw.initial_seed() % 2**32)
    # One thread: several add up their centres in the order in which they happen to finish.
    with threadpool_limits(1, "openmp"), warnings.catch_warnings():
        # Fewer different rows than types, of duplicated inputs, are no fault.
        warnings.simplefilter("ignore", ConvergenceWarning)
        means.fit(train[rows.to(train.device)].float().cpu().numpy())
        found = [means.predict(part.float().cpu().numpy()) for part in (train, test)]
    types = [torch.from_numpy(part).to(train.device, torch.int64) for part in found]
    return types[0], types[1]


def of_records(
    config: ControlConfig,
    task: Task,
    probes: Sequence[ProbeRecord],
    untrained: Sequence[ProbeRecord] = (),
    untrained_seed: int | None = None,
) -> list[ControlRecord]:
    """The controls that need no further fit.

    Args:
        config: which ones are wanted.
        task: for the majority class.
        probes: of the network; the probe of a layer called "input" is that of the input.
        untrained: of the untrained network.
        untrained_seed: of its weights.
    """
    found = []
    if "untrained" in config.names:
        found += [_of_probe("untrained", p, p.layer, untrained_seed) for p in untrained]
    if "input" in config.names:
        found += [_of_probe("input", p, None, None) for p in probes if p.layer == "input"]
    if "majority" in config.names:
        commonest = torch.bincount(task.train_labels).argmax()
        rate = error_rate(commonest.expand(len(task.test_labels)), task.test_labels)
        interval = _interval(rate, len(task.test_labels))
        found.append(ControlRecord("majority", None, 0, None, rate, interval))
    return found


def _of_probe(name: str, probe: ProbeRecord, layer: str | None, seed: int | None) -> ControlRecord:
    return ControlRecord(
        *(name, layer, 0, seed, probe.test_error_rate, probe.test_error_ci95),
        *(probe.l2, probe.duality_gap, probe.status),
    )


def _interval(rate: float, n: int) -> tuple[float, float]:
    return wilson_interval(round(rate * n), n) if rate == rate else (rate, rate)
