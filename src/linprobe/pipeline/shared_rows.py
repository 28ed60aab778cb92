"""Rows that several processes share: each has some of them, and none ever has them all.

Labels are small: every process learns all of them, and settles the same split. Features stay where
they are.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linprobe.core.sums import SharedSums
from linprobe.data.labels import Names, numpy_of
from linprobe.evaluation.options import EvaluationOptions
from linprobe.pipeline.array_layers import Array, torch_dtype
from linprobe.pipeline.task import Task
from linprobe.runtime.distributed import Ranks
from linprobe.runtime.errors import LinprobeError

_FITTED, _HELD_OUT, _ABSENT = range(3)


class SharedRows:
    """The rows of one process among those of all, which stand one process after the other.

    Args:
        ranks: the processes.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks

    def of_all(self, labels: Tensor, names: Names, split: str) -> tuple[Tensor, Names]:
        """Put the labels of all processes together.

        Args:
            labels: (n,) int64, those that are here; none is enough.
            names: of labels that aren't simply numbers.
            split: "train" or "test".

        Raises:
            LinprobeError: No process has a sample, or labels are of different kinds.
        """
        parts = self._ranks.gathered((labels, names))
        if not any(len(found) for found, _ in parts):
            raise LinprobeError(f"no process has a {split} sample; expected some in one at least")
        named = {bool(some) for found, some in parts if len(found)}
        if len(named) > 1:
            raise LinprobeError(
                f"{split} labels are whole numbers in one process and text in another; expected "
                "one kind in all"
            )
        together: Names = {}
        for _, some in parts:
            together |= some
        return torch.cat([found for found, _ in parts]), together

    def check_dtypes(self, layers: Mapping[str, tuple[Array, Array]]) -> None:
        """Refuse layers of other names or dtypes than those of the other processes.

        Raises:
            LinprobeError: They differ.
        """
        found = {name: [str(torch_dtype(x)) for x in pair] for name, pair in layers.items()}
        self._ranks.same(found, "layers or dtypes of features")

    def array_of_all(self, values: Any, what: str) -> np.ndarray | None:
        """Put together what each process has one of for each training sample; None stays so."""
        parts = self._ranks.gathered(None if values is None else _array(values, what))
        given = [part for part in parts if part is not None]
        if given and len(given) < len(parts):
            raise LinprobeError(f"{what} is given in some processes only; expected it in all")
        return np.concatenate([part for part in given if len(part)]) if given else None

    def own_part(self, task: Task, num_train: int, num_test: int) -> Task:
        """Restrict a task to the rows that are here.

        Rows stand in the order in which they were given, not in that of the task: so samples of
        them do not depend on how they are shared out.

        Args:
            task: of the rows of all processes.
            num_train: training rows that are here.
            num_test: test rows that are here.

        Raises:
            LinprobeError: The task takes all rows in one process.
        """
        _check_shareable(task.evaluation)
        counts = self._ranks.gathered((num_train, num_test))
        before = [sum(counts[rank][i] for rank in range(self._ranks.rank)) for i in range(2)]
        own = slice(before[0], before[0] + num_train)
        kind = torch.full((len(task.order),), _ABSENT)
        kind[task.order[: task.num_train]] = _HELD_OUT
        kind[task.order[: task.targets.num_fit]] = _FITTED
        # Where each row stands in the task, whose targets know no absent ones.
        place = task.permutation[own]
        kind = kind[own]
        order = kind.argsort(stable=True)
        num_fit, num_held, _ = torch.bincount(kind, minlength=3).tolist()
        place = place[order[: num_fit + num_held]]
        weight = task.targets.sample_weight
        targets = replace(
            task.targets,
            labels=task.targets.labels[place],
            num_held_out=num_held,
            sample_weight=None if weight is None else weight[place],
            sums=SharedSums(self._ranks, num_fit),
        )
        return replace(
            task,
            order=order,
            targets=targets,
            test_labels=task.test_labels[before[1] : before[1] + num_test],
            strict=True,  # one process can't go on to another layer alone
            whole=task,
            first_test_row=before[1],
        )


def _check_shareable(evaluation: EvaluationOptions) -> None:
    """Refuse what takes all rows of a layer in one process."""
    asked = [*evaluation.controls, *(["mdl"] if evaluation.mdl else [])]
    if asked:
        raise LinprobeError(
            f"{asked[0]!r} takes all rows in one process; expected neither controls nor mdl with "
            "distribute='rows'"
        )


def _array(values: Any, what: str) -> np.ndarray:
    if isinstance(values, tuple):
        raise LinprobeError(
            f"{what} is a tuple; expected one value for each training sample with distribute='rows'"
        )
    return numpy_of(values) if isinstance(values, Tensor) else np.asarray(values)
