"""Paths of penalties outside a probe."""

import torch

from linprobe import ProbeConfig
from linprobe.core.features import DenseFeatures, standardised
from linprobe.core.solve import DEFAULT_SOLVER
from linprobe.probes.base import Targets
from linprobe.probes.path import solve_path


def walked(x, y, weight=None, *, held_out=None, widen=True, solver=DEFAULT_SOLVER, **options):
    """Walk a path of `ProbeConfig` options; by default the last sixth of the rows is held out."""
    features = standardised(DenseFeatures(x), "layer", weight)
    targets = Targets(y, int(y.max()) + 1, held_out or len(y) // 6, weight)
    wide = features.in_float64 if widen and x.dtype != torch.float64 else None
    config = ProbeConfig(**options)
    return solve_path(features, targets, config, solver, lambda *_: None, wide)
