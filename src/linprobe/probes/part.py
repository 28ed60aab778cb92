"""A path of penalties on a part of the rows, where each read of all rows is one of a disk.

Penalties of a path are judged, and most of them judged bad. A random part of the rows that the
memory holds tells which: only the penalty that it chooses, and those beside it, are then solved and
judged on all rows (`linprobe.probes.path.solve_path`), starting from the part's solution.
"""

from dataclasses import replace

import torch
from torch import Tensor

from linprobe.core.features import DenseFeatures, FeatureMatrix
from linprobe.core.solve import SolverFactory
from linprobe.probes.base import OnSolve, Targets
from linprobe.probes.config import ProbeConfig
from linprobe.probes.holdout import holdout_order, num_held_out
from linprobe.probes.path import Path, solve_path

_SHARE = 1 / 3  # of the room: as much is left for whitened copies, and for samples
_ROWS_EACH = 10  # at the least, for each feature and class
_READ_ROWS = 8192


def solve_path_of_part(
    features: FeatureMatrix,
    targets: Targets,
    config: ProbeConfig,
    solver: SolverFactory,
    on_solve: OnSolve,
) -> Path | None:
    """Solve the path on as many rows as there is room for.

    Args:
        features: standardised rows, those held out last.
        targets: labels of classes that all occur among the fitted rows, and the rows' weights.
        config: the method's numbers.
        solver: makes the solver.
        on_solve: called after each solve.

    Returns:
        None where all rows are in memory, most of them would fit, or too few would.
    """
    share = _share(features, targets)
    if share is None or len(config.l2_path) == 1:
        return None
    index = _stratified(targets, share, torch.Generator().manual_seed(config.seed))
    labels = targets.labels[index]
    weight = targets.sample_weight
    part = replace(
        targets,
        labels=labels,
        num_held_out=int((index >= targets.num_fit).sum()),
        sample_weight=None if weight is None else weight[index],
    )
    taken = DenseFeatures(_taken(features, index), room=_SHARE * features.room)
    path = solve_path(taken, part, config, solver, on_solve)
    read = len(index) / features.num_rows  # passes count all rows
    points = tuple(
        replace(point, num_rows=part.num_fit, num_passes=read * point.num_passes)
        for point in path.points
    )
    return replace(path, points=points, num_passes=read * path.num_passes)


def _share(features: FeatureMatrix, targets: Targets) -> float | None:
    """Give the share of the rows that is taken; None: there is no use."""
    row = features.num_features * features.dtype.itemsize
    num_rows = _SHARE * features.room / row
    least = _ROWS_EACH * max(features.num_features, targets.num_classes)
    if not targets.sums.alone or not least <= num_rows <= features.num_rows / 2:
        return None
    return num_rows / features.num_rows


def _stratified(targets: Targets, share: float, generator: torch.Generator) -> Tensor:
    """Draw that share of the rows, of each class and of those held out, which stand last."""
    end, labels = targets.num_fit, targets.labels.cpu()
    order = holdout_order(labels[:end], 1 - share, generator)
    fitted = order[: end - num_held_out(end, 1 - share)]
    held = end + torch.randperm(targets.num_held_out, generator=generator)
    held = held[: max(1, round(share * len(held)))]
    return torch.cat([fitted, held]).to(targets.labels.device)


def _taken(features: FeatureMatrix, index: Tensor) -> Tensor:
    """Copy the rows of an index, in one read of all: here and there would be slower."""
    place = index.new_full((features.num_rows,), -1)
    place[index] = torch.arange(len(index), device=index.device)
    out = torch.empty(
        len(index), features.num_features, dtype=features.dtype, device=features.device
    )
    for where, block in features.parts(_READ_ROWS):
        to = place[where]
        out[to[to >= 0]] = block[to >= 0]
    return out
