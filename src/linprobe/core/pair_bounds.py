"""Bounds how far the margins of two classes can move to the optimum: the close bounds.

`linprobe.core.optimum_bounds` derives them.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from linprobe.core.features import FeatureMatrix, Standardisation

_ROWS = 1024  # of a pair
_KEPT = 0.95  # share of a pair's weight
_BLOCK_BYTES = 2 * 2**20
ROUNDING = 1e-5
"""Rounding of float32 inner products, relative to the squared length."""

SLACK = 1 + 1e-3
"""For leverages in float32."""


@dataclass(frozen=True)
class Seen:
    """Samples as the bounds see them.

    Attributes:
        inside: (n, rank), coordinates in the span of the rows.
        outside: (n,) float64, squared length of what is orthogonal to it.
        gradient: (n, n_classes) float64, inner products of that with the rows of G.
    """

    inside: Tensor
    outside: Tensor
    gradient: Tensor

    def __getitem__(self, index: Tensor) -> "Seen":
        return Seen(self.inside[index], self.outside[index], self.gradient[index])


class PairBounds:
    """Bounds of the margins of one class over another.

    Attributes:
        gap: duality gap (nats) at the best bias.

    Args:
        rows: (m, rank), training rows, standardised, in the coordinates of `basis`.
        of_class: gives a class's probability for each of them, (m,) float64.
        each: s_i, of all rows or (m,).
        gradient: G, (n_classes, n_features) float64; ``||G||^2 / (2 l2)`` is the gap.
        l2: the penalty.
        basis: (n_features, rank) float64 of the rows' span; None: features are taken as they are.
    """

    def __init__(
        self,
        rows: FeatureMatrix,
        of_class: Callable[[int], Tensor],
        each: float | Tensor,
        gradient: Tensor,
        l2: float,
        basis: Tensor | None = None,
    ) -> None:
        self._rows, self._of_class, self._each, self._basis = rows, of_class, each, basis
        self._gradient, self._l2 = gradient, l2
        self.gap = float(gradient.square().sum()) / (2 * l2)
        self._inner_gradient = gradient if basis is None else gradient @ basis

    def see(self, features: Tensor, standardisation: Standardisation) -> Seen:
        """Reduce raw features (n, n_features) to what the bounds need, in one read."""
        blocks = standardised_blocks(features, standardisation)
        if self._basis is None:
            x = torch.cat(list(blocks))
            zero = x.new_zeros(len(x), dtype=torch.float64)
            return Seen(x, zero, zero[:, None].expand(len(x), len(self._gradient)))
        outer = self._gradient - self._inner_gradient @ self._basis.T
        sizes = outer.norm(dim=1).clamp_min(torch.finfo(outer.dtype).tiny)
        directions = torch.cat([self._basis.T, outer / sizes[:, None]]).to(features.dtype)
        products, lengths = [], []
        for x in blocks:
            products.append(x @ directions.T)
            lengths.append(torch.linalg.vector_norm(x, dim=1).double().square())
        inside, along = torch.cat(products).split([self._basis.shape[1], len(outer)], dim=1)
        length = torch.cat(lengths)
        outside = (length * (1 + ROUNDING) - inside.double().square().sum(1)).clamp_min(0)
        return Seen(inside, outside, along.double() * sizes)

    def moves(self, pair: tuple[int, int], seen: Seen) -> tuple[Tensor, Tensor]:
        """Tell where the margins of the first class over the second can move, for samples (n,).

        Returns:
            m0 and the bound of the distance from it, each (n,) float64.
        """
        a, c = pair
        p, q = self._of_class(a), self._of_class(c)
        weight = (p * q / (p + q)).nan_to_num(nan=0.0) * self._each
        weight, chosen = weight.topk(min(_ROWS, len(weight)))
        rows = self._rows.take(chosen)
        weighted = _Leverage(rows, weight, self._l2)
        # A few rows of large leverage would set H, and weigh little: they do without.
        kept = weighted.rows <= _quantile(weighted.rows, weight, _KEPT)
        weighted = _Leverage(rows[kept], weight[kept], self._l2)
        largest = weighted.rows.max()
        inner = weighted.whiten(seen.inside)
        leverage = weighted.each + inner.square().sum(1).double() + seen.outside / self._l2
        slope = (self._inner_gradient[a] - self._inner_gradient[c]) @ weighted.root
        outer = (seen.gradient[:, a] - seen.gradient[:, c]) / self._l2
        reach = SLACK * (leverage / largest).sqrt() * reach_of(self.gap * largest / 2)
        return -0.5 * (inner.double() @ slope + outer), reach.nan_to_num(nan=math.inf)


class _Leverage:
    """A pair's weighted rows: ``A^-1 = root root^T``, <x>, 1 / C and ``lev(x_i)^2`` of each row."""

    def __init__(self, rows: Tensor, weight: Tensor, l2: float) -> None:
        total = weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)
        self.each = 1 / total
        exact = rows.double()
        self.centre = weight @ exact / total
        centred = exact.sub_(self.centre) if exact is not rows else exact - self.centre
        centred.mul_(weight.sqrt()[:, None])
        matrix = centred.T @ centred
        matrix.diagonal().add_(l2)
        identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
        factor = torch.linalg.cholesky(matrix)
        self.root: Tensor = torch.linalg.solve_triangular(factor, identity, upper=False).T
        self.rows = self.each + self.whiten(rows).square().sum(1).double()

    def whiten(self, x: Tensor) -> Tensor:
        """``root^T (x - <x>)`` of (n, rank), in the dtype of `x`."""
        return (x - self.centre.to(x.dtype)) @ self.root.to(x.dtype)


def _quantile(values: Tensor, weight: Tensor, share: float) -> Tensor:
    """Least value such that those up to it have `share` of the weight."""
    order = values.argsort()
    reached = weight[order].cumsum(0) >= share * weight.sum()
    return values[order][reached.to(torch.uint8).argmax()]


def reach_of(q: Tensor) -> Tensor:
    """Give the largest t with ``t^2 / (2 + t) <= q``."""
    return (q + (q * q + 8 * q).sqrt()) / 2


def standardised_blocks(features: Tensor, standardisation: Standardisation) -> Iterator[Tensor]:
    """Yield raw rows standardised, a block at a time."""
    rows = max(1, _BLOCK_BYTES // (features.element_size() * features.shape[1]))
    return map(standardisation.apply, features.split(rows))
