"""Controls: what a probe's error is to be compared with before it is believed.

Each control of a layer is fitted by the same protocol as the layer's probe: same path of `l2`,
same choice on held-out rows, same certificate. Sample weights stay with their rows; class weights
go by the labels that are fitted, so that "balanced" balances those of the control.

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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from linprobe.core.features import DenseFeatures, FeatureMatrix
from linprobe.evaluation.options import EvaluationOptions
from linprobe.evaluation.statistics import error_rate, rate_interval
from linprobe.probes.base import FailedProbe, OnSolve, ProbeMethod, Targets
from linprobe.records.evidence import ControlRecord
from linprobe.records.schema import ProbeRecord
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.randomness import generator

OF_LAYERS = ("shuffled_labels", "control_task", "random_features")
TYPES_PER_CLASS = 10
_FIT_ROWS = 10_000

Pair = tuple[Tensor, Tensor]

SeededMethod = Callable[[int], ProbeMethod]
"""Called as ``method(seed)``: the method of the probes that are compared, with that seed."""


@dataclass(frozen=True)
class ControlData:
    """Labels, inputs and types that the controls of all layers share; rows are the features'.

    Attributes:
        targets: labels (n_train,) int64, held-out rows last, as for the probes.
        test_labels: (n_test,) int64.
        inputs: of the network, flattened: (n_train, n_inputs) and (n_test, n_inputs) floating
            point; None: not known.
        types: of the control task, (n_train,) and (n_test,) int64 from 0 on; None: clusters of
            the inputs.
    """

    targets: Targets
    test_labels: Tensor
    inputs: Pair | None = None
    types: Pair | None = None


class Controls:
    """Fits the controls of a network layer by layer; a draw is the same for all layers.

    Args:
        options: which ones, and how often.
        data: labels, inputs and types.
        method: of the probes.
        seed: of the first draw; the next ones count up from it.

    Raises:
        LinprobeError: A control needs inputs or types that the data does not have.
    """

    def __init__(
        self, options: EvaluationOptions, data: ControlData, method: SeededMethod, seed: int
    ) -> None:
        self.options, self.data, self.method, self.seed = options, data, method, seed
        types_missing = "control_task" in options.controls and data.types is None
        if data.inputs is None and (types_missing or "random_features" in options.controls):
            raise LinprobeError(
                "the controls 'random_features' and, without types, 'control_task' start from "
                "the network's inputs, which are not known here; give them, or leave these out"
            )
        self._types = data.types
        if types_missing and data.inputs is not None:
            num_types = min(TYPES_PER_CLASS * data.targets.num_classes, len(data.inputs[0]))
            self._types = input_types(*data.inputs, num_types, seed)

    @property
    def fits_per_layer(self) -> int:
        """Number of probes that `of_layer` fits."""
        return self.options.repeats * sum(name in OF_LAYERS for name in self.options.controls)

    def of_layer(
        self,
        layer: str,
        train: FeatureMatrix,
        test: Tensor | FeatureMatrix,
        test_error_rate: float,
        on_solve: OnSolve | None = None,
    ) -> Iterator[ControlRecord]:
        """Fit the controls that belong to one layer, and yield each when it is fitted.

        Args:
            layer: its name.
            train: (n_train, n_features), finite, as the method prepared them.
            test: (n_test, n_features), raw.
            test_error_rate: of the layer's probe, for the selectivity.
            on_solve: called after each fit, with the control's name as stage.
        """
        for name in (name for name in self.options.controls if name in OF_LAYERS):
            for repeat in range(self.options.repeats):
                record, num_passes = self._control(name, layer, repeat, train, test)
                if name == "control_task":
                    gained = record.test_error_rate - test_error_rate
                    record = replace(record, selectivity=gained)
                if on_solve is not None:
                    stage = f"{name} {repeat + 1} of {self.options.repeats}"
                    on_solve(stage, record.l2 or 0.0, num_passes, record.duality_gap or 0.0)
                yield record

    def _control(
        self,
        name: str,
        layer: str,
        repeat: int,
        train: FeatureMatrix,
        test: Tensor | FeatureMatrix,
    ) -> tuple[ControlRecord, float]:
        """Fit one draw; also return the passes that it took."""
        seed, targets = self.seed + repeat, self.data.targets
        method, labels = self.method(seed), (targets.labels, self.data.test_labels)
        if name == "random_features":
            random_train, test = self.random_features(train.num_features, seed)
            prepared = method.prepare(
                DenseFeatures(random_train, owned=True), targets.to(random_train.device)
            )
            assert not isinstance(prepared, FailedProbe)  # the inputs are finite
            train = prepared
        elif name == "control_task":
            labels = self.control_labels(seed)
        else:
            labels = self.shuffled(seed), labels[1]
        y, y_test = (part.to(train.device) for part in labels)
        fitted = method.fit(train, replace(targets, labels=y).to(train.device))
        if isinstance(fitted, FailedProbe):
            unknown = float("nan")
            record = ControlRecord(name, layer, repeat, seed, unknown, (unknown, unknown))
            return replace(record, status=str(fitted.status)), 0.0
        fitted = fitted.tested(test, y_test)
        rate = fitted.test_error_rate
        record = ControlRecord(
            *(name, layer, repeat, seed, rate, rate_interval(rate, len(y_test))),
            *(fitted.l2, fitted.duality_gap, str(fitted.status)),
        )
        return record, fitted.num_passes

    def shuffled(self, seed: int) -> Tensor:
        """Training labels permuted, the held-out rows among themselves: (n_train,) int64.

        So each part keeps its share of every class.
        """
        labels, draw = self.data.targets.labels, generator(seed, "shuffled_labels")
        held_out = self.data.targets.num_held_out
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
        held_out = self.data.targets.num_held_out
        draw = generator(seed, "control_task")
        num_types = int(max(train.max(), test.max())) + 1
        label = torch.randint(self.data.targets.num_classes, (num_types,), generator=draw)
        seen = train[: len(train) - held_out].unique().cpu()
        unseen = torch.ones(num_types, dtype=torch.bool).index_fill_(0, seen, False)
        lent = seen[torch.randint(len(seen), (num_types,), generator=draw)]
        label = torch.where(unseen, label[lent], label).to(train.device)
        return label[train], label[test]

    def random_features(self, num_features: int, seed: int) -> Pair:
        """Draw ``relu(x A)`` of both splits; x is centred and of mean square 1."""
        assert self.data.inputs is not None
        train, test = self.data.inputs
        weight = self.data.targets.sample_weight
        if weight is None:
            mean = train.mean(0)
            square = (train - mean).square().sum(1).mean()
        else:
            share = (weight / weight.sum()).to(train)
            mean = share @ train
            square = share @ (train - mean).square().sum(1)
        scale = square.rsqrt().nan_to_num(posinf=1.0)
        draw = generator(seed, "random_features")
        projection = torch.randn(train.shape[1], num_features, generator=draw).to(train)
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
        types_of = [means.predict(part.float().cpu().numpy()) for part in (train, test)]
    types = [torch.from_numpy(part).to(train.device, torch.int64) for part in types_of]
    return types[0], types[1]


def of_records(
    options: EvaluationOptions,
    data: ControlData,
    probes: Sequence[ProbeRecord],
    untrained: Sequence[ProbeRecord] = (),
    untrained_seed: int | None = None,
) -> list[ControlRecord]:
    """List the controls that need no further fit.

    Args:
        options: which ones are wanted.
        data: for the majority class.
        probes: of the network; the probe of a layer called "input" is that of the input.
        untrained: of the untrained network.
        untrained_seed: of its weights.
    """
    records = []
    if "untrained" in options.controls:
        records += [_of_probe("untrained", p, p.layer, untrained_seed) for p in untrained]
    if "input" in options.controls:
        records += [_of_probe("input", p, None, None) for p in probes if p.layer == "input"]
    if "majority" in options.controls:
        commonest = torch.bincount(data.targets.labels, data.targets.sample_weight).argmax()
        rate = error_rate(commonest.expand(len(data.test_labels)), data.test_labels)
        interval = rate_interval(rate, len(data.test_labels))
        records.append(ControlRecord("majority", None, 0, None, rate, interval))
    return records


def _of_probe(name: str, probe: ProbeRecord, layer: str | None, seed: int | None) -> ControlRecord:
    return ControlRecord(
        *(name, layer, 0, seed, probe.test_error_rate, probe.test_error_ci95),
        *(probe.l2, probe.duality_gap, probe.status),
    )
