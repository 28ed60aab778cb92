"""Newton directions for layers of many features: rows drawn by length, sketched preconditioner."""

from dataclasses import replace
from math import log

import torch
from torch import Tensor

from linprobe.core.linalg import fast_bfloat16
from linprobe.core.problem import LinearProblem
from linprobe.core.solvers.base import NewtonOptions
from linprobe.core.solvers.model import WEAK_PROGRESS
from linprobe.core.solvers.sampled_hessian import (
    CGOptions,
    Preconditioner,
    SampledHessian,
    conjugate_gradients,
    curvature_root,
    draw_rows,
    rows_in_room,
    seen_by_all,
)
from linprobe.core.solvers.subspace import Direction

_CHEAP_CG, _DEAR_CG, _MOST_STEPS = 0.1, 0.5, 60
# What a step costs beside its direction, in products of all rows: two reads, and the search.
_REST_OF_STEP = 3.0
_LOW_PRECISION_COST = 0.5  # of a product, beside one in float32
_FIRST_ROWS = 4000
_SAMPLE_BYTES = 1.6e9
_GATHERED_ROWS = 1000  # at a time, in the features' dtype
# The rank of a preconditioner, and how many directions share it. A sketch costs as many products
# as its rank has vectors for each logit.
_RANK, _SHARED_BY = 150, 3
_RANK_OF_ONE, _SHARED_BY_OF_ONE = 60, 10
_LEAST_SCALE = 1e-4  # of a class's curvature, over the mean
_TALL_RTOL = 1e-9  # of the largest eigenvalue; vectors of smaller ones would not be orthogonal
_LOW_PRECISION_L2 = 3e-8  # down to here bfloat16 serves


class SketchedModel:
    """A `NewtonModel` whose cost grows as the number of features.

    Few samples carry most of the Hessian: those that the probe is unsure of. Rows are drawn with
    probability proportional to ``s_i (1 - sum_k p_ik^2) ||x_i||^2``, which bounds each one's
    contribution to the trace.
    """

    def __init__(
        self, problem: LinearProblem, options: NewtonOptions, generator: torch.Generator
    ) -> None:
        self._problem, self._options, self._generator = problem, options, generator
        self._lengths = problem.squared_norms() * problem.sample_weight
        self._preconditioner: NystromPreconditioner | None = None
        self._age = 0
        self._dearness = 0.0
        one = problem.num_classes == 1
        self._rank = _RANK_OF_ONE if one else _RANK
        self._shared_by = _SHARED_BY_OF_ONE if one else _SHARED_BY
        self._room: Tensor | None = None
        cheap = fast_bfloat16(problem.device) and problem.dtype != torch.float64
        self._dtypes = [torch.bfloat16, torch.float32] if cheap else [problem.dtype]
        bytes_per_row = problem.num_features * problem.dtype.itemsize
        most = min(problem.total_samples, max(4000, _SAMPLE_BYTES / bytes_per_row))
        most = min(most, options.most_rows or most)
        self._most_rows = rows_in_room(problem, most)
        self._first_rows = rows_in_room(problem, options.sample_rows or _FIRST_ROWS)
        self._num_rows = self._first_rows
        self._l2, self._level = 1.0, 0

    def begin(self, predictions: Tensor, l2: float) -> None:
        """See `NewtonModel`."""
        self._l2, self._level = l2, int(l2 <= _LOW_PRECISION_L2)
        self._num_rows = max(self._first_rows, self._num_rows // 2)

    def improve(self) -> None:
        """See `NewtonModel`."""
        self._level += int(self._num_rows >= self._most_rows)
        self._num_rows = min(2 * self._num_rows, self._most_rows)

    @property
    def _accuracy(self) -> CGOptions:
        """Of a direction: the dearer directions are, the more of them may leave more undone."""
        return CGOptions(_CHEAP_CG + (_DEAR_CG - _CHEAP_CG) * self._dearness, _MOST_STEPS)

    def is_weak(self, ratio: float) -> bool:
        """See `NewtonModel`.

        Twice as many rows leave half as much of the gap, but for what conjugate gradients leave.
        They pay where the logarithm of the ratio grows by more than the price of a step.
        """
        better = (ratio + self._accuracy.tol**2) / 2
        return ratio > WEAK_PROGRESS and log(better) < (1 + self._dearness) * log(ratio)

    @property
    def learned(self) -> NewtonOptions:
        """See `NewtonModel`."""
        return replace(self._options, sample_rows=self._num_rows)

    def backproject(self, residuals: Tensor) -> Tensor:
        """See `NewtonModel`."""
        return self._problem.backproject(residuals)

    def direction(
        self, predictions: Tensor, gradient: Tensor, *, with_logits: bool = True
    ) -> Direction:
        """See `NewtonModel`."""
        dtype = self._dtypes[min(self._level, len(self._dtypes) - 1)]
        importance = self._problem.loss.importance(predictions) * self._lengths
        sample = draw_rows(self._problem, importance, self._num_rows, self._generator)
        rows = self._problem.sums.gathered(self._taken(sample.index, dtype))
        p, s = seen_by_all(self._problem, predictions, sample)
        if self._preconditioner is None or self._age >= self._shared_by:
            seed = int(torch.randint(2**31, (), generator=self._generator))
            self._preconditioner = NystromPreconditioner(
                rows, curvature_root(self._problem.loss, p, s), seed, self._rank
            )
            self._age = 0
        self._age += 1
        hessian = SampledHessian(rows, self._problem.loss, p, s, s.new_full((1,), self._l2))
        scales = hessian.curvature / hessian.curvature.mean()
        preconditioner = self._preconditioner.at(self._l2, scales)
        weight, _ = conjugate_gradients(
            hessian, gradient.to(p.dtype), precondition=preconditioner, options=self._accuracy
        )
        cost = _LOW_PRECISION_COST if dtype.itemsize < p.dtype.itemsize else 1.0
        cost *= hessian.num_products * len(rows) / self._problem.total_used
        self._dearness = cost / (cost + _REST_OF_STEP)
        weight = self._problem.sums.agreed(weight)
        logits = self._problem.logits(weight) if with_logits else weight[:, :0]
        return Direction(weight.double(), logits)

    def _taken(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        """Take rows (m, n_features) in that dtype, into the memory of those before."""
        num_rows, num_features = len(index), self._problem.num_features
        size = num_rows * num_features
        if self._room is None or self._room.dtype != dtype or len(self._room) < size:
            self._room = None  # freed before there is another
            self._room = torch.empty(size, dtype=dtype, device=index.device)
        rows = self._room[:size].view(num_rows, num_features)
        for part, out in zip(index.split(_GATHERED_ROWS), rows.split(_GATHERED_ROWS), strict=True):
            out.copy_(self._problem.rows(part))
        return rows


class NystromPreconditioner:
    """Approximate inverse of ``A + l2 I`` for layers of many features.

    A is the Gram matrix of `curvature_root`, sketched by a randomised Nystrom approximation
    (Frangella, Tropp & Udell 2023, Algorithm 2.1), whose smallest eigenvalue stands for the
    tail. The same for each class, but for the scale of its curvature: ``c_k A + l2 I``.
    """

    def __init__(self, features: Tensor, root: Tensor, seed: int, rank: int = _RANK) -> None:
        self._values, self._vectors = _nystrom(features, root, seed, rank)

    def at(self, l2: float, scales: Tensor) -> Preconditioner:
        """The map for this penalty and classes of these scales (n_classes, 1)."""
        if not len(self._values):  # all curvature is the penalty's
            return lambda gradient: gradient / l2
        scales = scales.clamp_min(_LEAST_SCALE)
        floor = 1 / (scales * self._values[0] + l2)
        factors = 1 / (scales * self._values + l2) - floor

        def apply(gradient: Tensor) -> Tensor:
            inside = (gradient @ self._vectors).mul_(factors)
            return torch.addmm(gradient * floor, inside, self._vectors.T)

        return apply


def _nystrom(features: Tensor, root: Tensor, seed: int, rank: int) -> tuple[Tensor, Tensor]:
    """Leading eigenvalues (ascending) and vectors of ``(root x)^T (root x)``."""
    rank = min(rank, *features.shape)
    generator = torch.Generator(features.device).manual_seed(seed)
    test = torch.randn(
        features.shape[1], rank, generator=generator, device=features.device, dtype=root.dtype
    )
    test = torch.linalg.qr(test).Q
    inside = (features @ test.to(features.dtype)).to(root.dtype) * root.square()[:, None]
    sketch = (features.T @ inside.to(features.dtype)).to(root.dtype)
    core = test.T @ sketch
    shift = float(torch.finfo(features.dtype).eps) * float(core.diagonal().sum())
    if not shift > 0:  # no sample is unsure
        return root.new_empty(0), root.new_empty(features.shape[1], 0)
    sketch += shift * test
    core = test.T @ sketch
    values, vectors = torch.linalg.eigh((core + core.T) / 2)
    half = (sketch @ vectors) * values.clamp_min(shift).rsqrt()
    # Its singular values and vectors; an SVD of so tall a matrix takes ten times as long.
    wide = half.double()
    squares, right = torch.linalg.eigh(wide.T @ wide)
    kept = squares > _TALL_RTOL * squares[-1]
    left = (wide @ (right[:, kept] * squares[kept].rsqrt())).to(root.dtype)
    return (squares[kept] - shift).clamp_min(0).to(root.dtype), left
