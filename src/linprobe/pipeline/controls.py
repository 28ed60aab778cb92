"""From the controls that a user asks for to what each layer gets."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linprobe.data.arrays import array_tensor
from linprobe.evaluation.controls import ControlData, Controls, Pair, of_records
from linprobe.evaluation.plan import EvaluationPlan
from linprobe.pipeline.layer_fit import LayerFeatures, fit_layer
from linprobe.pipeline.task import Task
from linprobe.probes.base import ProbeMethod
from linprobe.probes.softmax import SoftmaxProbe
from linprobe.records.evidence import ControlRecord
from linprobe.records.schema import ProbeRecord
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.text import layer_reason

INPUT = "input"
OF_NETWORKS = ("untrained", INPUT, "random_features")


def with_plan(task: Task, inputs: Pair | None = None) -> Task:
    """Prepare what a task asks for beside each probe.

    Args:
        task: without a plan.
        inputs: of the network, flattened: (n_rows, n_inputs) in the task's order, and
            (n_test, n_inputs).

    Raises:
        LinprobeError: Types that don't fit, or a control without what it starts from.
    """
    options = task.evaluation
    types = None if options.types is None else _read_types(task, options.types)
    if inputs is not None:
        inputs = (inputs[0][: task.num_train], inputs[1])
    data = ControlData(task.targets, task.test_labels, inputs, types)

    def method(seed: int) -> ProbeMethod:
        return SoftmaxProbe(replace(task.config, seed=seed, exact=False))

    controls = Controls(options, data, method, task.config.seed)
    return replace(task, plan=EvaluationPlan(controls, task.config if options.mdl else None))


def controls_of_task(
    task: Task,
    inputs: Pair | None = None,
    untrained: Callable[[Task], Sequence[ProbeRecord]] | None = None,
) -> tuple[tuple[ControlRecord, ...], tuple[str, ...]]:
    """Fit the controls that belong to no layer, and those of the untrained network.

    Args:
        task: of the probes.
        inputs: as `with_plan` takes them.
        untrained: probes the untrained network by a task without a plan.

    Returns:
        The controls, and a sentence on each that an error took away.
    """
    options, plain = task.evaluation, replace(task, plan=EvaluationPlan())
    notes: list[str] = []

    def attempt(
        name: str, fit: Callable[[Task], Sequence[ProbeRecord]] | None
    ) -> Sequence[ProbeRecord]:
        if fit is None or name not in options.controls:
            return ()
        try:
            return fit(plain)
        except Exception as error:
            if task.strict:
                raise
            notes.append(f"The control {name!r} failed: {layer_reason(name, error)}.")
            return ()

    def of_inputs(plain: Task) -> Sequence[ProbeRecord]:
        features = None if inputs is None else LayerFeatures(*inputs, inputs[0].dtype)
        return () if features is None else (fit_layer(INPUT, 0, features, plain).record,)

    probes, before = attempt(INPUT, of_inputs), attempt("untrained", untrained)
    data = ControlData(task.targets, task.test_labels)
    return tuple(of_records(options, data, probes, before, task.config.seed)), tuple(notes)


def _read_types(task: Task, types: object) -> Pair:
    if not isinstance(types, tuple | list) or len(types) != 2:
        raise LinprobeError("types is no pair; expected (types of train, types of test)")
    train, test = (_numbers(t, split) for t, split in zip(types, ("train", "test"), strict=True))
    for split, given, rows in (("train", train, task.order), ("test", test, task.test_labels)):
        if given.shape != rows.shape or (len(given) and int(given.min()) < 0):
            raise LinprobeError(
                f"{split} types have shape {tuple(given.shape)}; expected "
                f"{tuple(rows.shape)}, a number from 0 on for each sample's type"
            )
    return train[task.order[: task.num_train]], test


def _numbers(types: Any, split: str) -> Tensor:
    try:
        given = types if isinstance(types, Tensor) else array_tensor(np.asarray(types))
    except (TypeError, ValueError, RuntimeError) as error:
        raise LinprobeError(f"{split} types can't be read ({error}); expected numbers") from error
    if given.is_floating_point() or given.is_complex():
        raise LinprobeError(
            f"{split} types have dtype {str(given.dtype).removeprefix('torch.')}; expected whole "
            "numbers from 0 on"
        )
    return given.detach().cpu().to(torch.int64)
