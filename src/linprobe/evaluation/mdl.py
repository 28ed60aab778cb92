"""Minimum description length of labels given features, by the online code.

Voita & Titov, Information-theoretic probing with minimum description length (EMNLP 2020, section
2.2.2): the labels are sent block after block, each coded by the probe that was fitted on all
blocks before it; the first is coded uniformly. Features that make the labels easy for a linear
probe, from few samples, make the code short.

Choices of ours, the same for all layers:

- The training rows are sent in the order that `fit_probe` takes them in: one random shuffle.
- The penalty is that of a fixed Gaussian prior: after t of n rows ``l2 * n / t``, with the `l2`
  that the protocol chose for the layer. Naming it would add ``log2(path length)``, about 3 bits.
- A probe that is the exact optimum gives no probability to classes that it has not seen. The code
  mixes it with the uniform distribution, K parts to t: ``(t p_k + 1) / (t + K)``.
- Rows with weights are coded as if each stood so often, all of them together as often as there are
  rows: a row's bits are multiplied by its weight, and t above is the weight that was sent.
- Every fit starts from the one before. Blocks are prefixes of the same rows, so that all fits
  together read the features about twice as often as the last one does. A fit that is not
  converged makes the code longer, not wrong.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

from linprobe.core.features import FeatureMatrix, as_features
from linprobe.core.problem import SoftmaxRegression
from linprobe.core.solve import DEFAULT_SOLVER, SolverFactory
from linprobe.core.solvers.base import NewtonOptions, Point
from linprobe.probes.config import ProbeConfig
from linprobe.records.evidence import OnlineCode
from linprobe.runtime.errors import LinprobeError

CUT_POINTS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""Ends of the blocks, as shares of the rows."""


def online_codelength(
    features: Tensor | FeatureMatrix,
    labels: Tensor,
    num_classes: int,
    l2: float,
    config: ProbeConfig | None = None,
    *,
    cut_points: tuple[float, ...] = CUT_POINTS,
    solver: SolverFactory = DEFAULT_SOLVER,
    sample_weight: Tensor | None = None,
) -> OnlineCode:
    """Measure the length of the online code of `labels` given `features`.

    Args:
        features: (n, n_features), standardised, in the order of transmission; finite.
        labels: (n,) int64 in 0..n_classes-1.
        num_classes: K, at least 2.
        l2: penalty of a probe that is fitted on all rows.
        config: tolerance, passes and seed of each fit.
        cut_points: rising shares of the rows, the last one 1.
        solver: makes the solver of each fit.
        sample_weight: (n,), positive, of the rows; scaled here to a mean of 1. Default: equal.

    Raises:
        LinprobeError: Cut points or K that can't be used.
    """
    if list(cut_points) != sorted(set(cut_points)) or not cut_points or cut_points[-1] != 1:
        raise LinprobeError(f"cut points are {cut_points}; expected rising shares that end in 1")
    if num_classes < 2:
        raise LinprobeError(f"there is {num_classes} class; expected 2 or more to code")
    n = len(labels)
    ends = sorted({max(1, round(share * n)) for share in cut_points})
    if sample_weight is not None:
        sample_weight = sample_weight.double() * (n / sample_weight.sum(dtype=torch.float64))
    coder = _Coder(
        *(as_features(features), labels, num_classes, l2, config or ProbeConfig(), solver),
        sample_weight,
    )
    blocks = [(ends[0], coder.mass(ends[0]) * math.log2(num_classes))]
    for seen, end in pairwise(ends):
        blocks.append((end - seen, coder.code_block(seen, end)))
    bits = sum(length for _, length in blocks)
    uniform = n * math.log2(num_classes)
    return OnlineCode(bits, uniform, uniform / bits, tuple(blocks))


class _Coder:
    """Fits on growing prefixes of the rows, each from the one before."""

    def __init__(
        self,
        features: FeatureMatrix,
        labels: Tensor,
        num_classes: int,
        l2: float,
        config: ProbeConfig,
        solver: SolverFactory,
        sample_weight: Tensor | None,
    ) -> None:
        self.sample_weight = sample_weight
        self.features, self.labels, self.l2, self.config = features, labels, l2, config
        self.solver = solver
        self.weight = torch.zeros(
            num_classes, features.num_features, dtype=torch.float64, device=features.device
        )
        self.bias = self.weight.new_zeros(num_classes)
        self.logits = self.bias.new_zeros(num_classes, 0).to(
            features.dtype
        )  # of the rows read so far, no bias

    def mass(self, end: int) -> float:
        """Weight of the first rows."""
        return end if self.sample_weight is None else float(self.sample_weight[:end].sum())

    def code_block(self, seen: int, end: int) -> float:
        """Bits of the labels from row `seen` to `end`, by a probe of the rows before them."""
        probabilities = self._fit(seen, end)
        num_classes = len(self.weight)
        own = probabilities.gather(0, self.labels[None, seen:end])[0]
        mass = self.mass(seen)
        bits = -((mass * own + 1) / (mass + num_classes)).log2()
        if self.sample_weight is not None:
            bits = bits * self.sample_weight[seen:end]
        return float(bits.sum())

    def _fit(self, seen: int, end: int) -> Tensor:
        """Probabilities (n_classes, end - seen) by the probe of the first `seen` rows."""
        classes, compact = self.labels[:seen].unique(return_inverse=True)
        probabilities: Tensor = self.bias.new_zeros(len(self.bias), end - seen)
        if len(classes) == 1:
            probabilities[classes] = 1.0
            return probabilities
        weight = None if self.sample_weight is None else self.sample_weight[:seen]
        problem = SoftmaxRegression(self.features.rows(0, seen), compact, len(classes), weight)
        solver = self.solver(problem, NewtonOptions(seed=self.config.seed))
        logits = torch.cat([self.logits, self._logits(self.logits.shape[1], seen)], dim=1)
        start = Point(self.weight[classes], self.bias[classes], logits[classes])
        solution = solver.solve(
            self.l2 * len(self.labels) / self.mass(seen),
            tol=self.config.tol,
            max_passes=self.config.max_passes,
            starts=(start,),
        )
        self.weight[classes], self.bias[classes] = solution.point.weight, solution.point.bias
        self.logits = self._logits(0, end)
        coming = self.logits[:, seen:]
        given = coming[classes].double() + self.bias[classes][:, None]
        probabilities[classes] = given.softmax(0)
        return probabilities

    def _logits(self, first: int, end: int) -> Tensor:
        return self.features.rows(first, end).logits(self.weight)
