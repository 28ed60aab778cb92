"""The extras of `probe` and `fit_probes`: from what a user asks for to what each layer gets."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from linprobe.evaluation.controls import ControlConfig, Pair, of_records
from linprobe.evaluation.controls import Task as ControlTask
from linprobe.evaluation.plan import Extras, make_extras
from linprobe.pipeline.fitting import Task, fit_layer
from linprobe.records.evidence import ControlRecord
from linprobe.records.schema import ProbeRecord
from linprobe.runtime.errors import LinprobeError

INPUT = "input"
OF_NETWORKS = ("untrained", INPUT, "random_features")


def wants_inputs(wanted: ControlConfig, types: object) -> bool:
    """Whether a control starts from the network's inputs."""
    names = {INPUT, "random_features"} | ({"control_task"} if types is None else set())
    return bool(names & set(wanted.names))


def with_extras(
    task: Task,
    wanted: ControlConfig,
    *,
    mdl: bool,
    types: object = None,
    inputs: Pair | None = None,
) -> Task:
    """A task whose layers are fitted with these extras.

    Args:
        task: without extras.
        wanted: which controls.
        mdl: whether to compute the online code.
        types: of the control task, as the user gives them; None: clusters of the inputs.
        inputs: (n_train, n_inputs) in the task's order, and (n_test, n_inputs).

    Raises:
        LinprobeError: Types that don't fit, or a control without what it starts from.
    """
    numbered = None if types is None else _read_types(task, types)
    extras = make_extras(
        wanted,
        mdl=mdl,
        train_labels=task.train_labels,
        test_labels=task.test_labels,
        num_classes=task.num_classes,
        probe=task.config,
        inputs=inputs,
        types=numbered,
    )
    return replace(task, extras=extras)


def controls_of_task(
    task: Task,
    wanted: ControlConfig,
    inputs: Pair | None = None,
    untrained: Callable[[Task], Sequence[ProbeRecord]] | None = None,
) -> tuple[ControlRecord, ...]:
    """The controls that belong to no layer, and those of the untrained network.

    Args:
        task: of the probes.
        wanted: which controls.
        inputs: as `with_extras` takes them.
        untrained: probes the untrained network by a task without extras.
    """
    plain = replace(task, extras=Extras())
    probes = []
    if INPUT in wanted.names and inputs is not None:
        probes.append(fit_layer(plain, INPUT, 0, inputs[0].clone(), inputs[1]).record)
    before: Sequence[ProbeRecord] = ()
    if "untrained" in wanted.names and untrained is not None:
        before = untrained(plain)
    labels = ControlTask(task.train_labels, task.test_labels, task.num_classes)
    return tuple(of_records(wanted, labels, probes, before, wanted.seed))


def _read_types(task: Task, types: object) -> Pair:
    if not isinstance(types, tuple | list) or len(types) != 2:
        raise LinprobeError("types is no pair; expected (types of train, types of test)")
    train, test = (_numbers(t, split) for t, split in zip(types, ("train", "test"), strict=True))
    for split, found, labels in (
        ("train", train, task.train_labels),
        ("test", test, task.test_labels),
    ):
        if found.shape != labels.shape or (len(found) and int(found.min()) < 0):
            raise LinprobeError(
                f"{split} types have shape {tuple(found.shape)}; expected "
                f"{tuple(labels.shape)}, a number from 0 on for each sample's type"
            )
    return train[task.order], test


def _numbers(types: Any, split: str) -> Tensor:
    try:
        found = torch.as_tensor(types)
    except (TypeError, ValueError, RuntimeError) as error:
        raise LinprobeError(f"{split} types can't be read ({error}); expected numbers") from error
    if found.is_floating_point() or found.is_complex():
        raise LinprobeError(
            f"{split} types have dtype {str(found.dtype).removeprefix('torch.')}; expected whole "
            "numbers from 0 on"
        )
    return found.detach().cpu().to(torch.int64)
