"""Layers of low rank, solved on as many coordinates as their rank.

A layer has no more rank than it has rows, and a linear layer no more than its input. The optimal
weight lies in the span of the feature rows (the gradient of the cross-entropy does, and a part
outside would only cost penalty), so with an orthonormal basis V of it, ``min P(W)`` over
``W = A V^T`` is the same problem on features ``x V``, with ``||W|| = ||A||``.

Few rows X give V by their Gram matrix, factorised by Cholesky with pivots: with the triangle L of
the rows R that were pivots, ``R R^T = L L^T``, the basis is ``V^T = L^(-1) R``, and the coordinates
of all rows are the factor's rows. Of many rows, a sketch is taken.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import solve_triangular as solve

from linprobe.core.features import DenseFeatures, FeatureMatrix, StandardisedFeatures
from linprobe.core.linalg import put_columns, take_columns

MAX_RANK = 1024
"""Largest rank that is looked for among many rows."""

MAX_ROWS = 2048
"""Largest number of rows whose Gram matrix is formed."""

_FOUND = "row space"
_ROWS = 1536  # of the sketch: more rank than MAX_RANK shows in it
_STRIDE = 31
_SPARE = 16
_COLUMNS = 4  # for each coordinate
_SEEN = 0.02  # of what a part of the columns has of an average direction
_CHECKED_ROWS = 256
_BLOCK_ROWS = 8192
# Share of the features' energy that may lie outside, about what float32 rounding leaves there.
# It moves the optimum's gap by at most this over l2, and the certificate sees it.
_OUTSIDE = 1e-12
_GRAM_OUTSIDE = 1e-14  # about what rounding leaves in a Gram matrix of float64
_GRAM_BLOCK = 256
_GRAM_BYTES, _SKETCH_BYTES = 32, 20  # of each number of a Gram matrix, of a sketch, at the most


@dataclass(frozen=True)
class RowSpace:
    """Features in coordinates of the span of their rows.

    Attributes:
        coordinates: (n_samples, rank), with the products of the rows among each other unchanged.
        lift: maps a weight (n_classes, rank) of the coordinates to the float64 weight
            (n_classes, n_features) of the same logits and the same norm.
        project: maps a float64 gradient (n_classes, n_features) to that over the coordinates, the
            transpose of `lift`.
    """

    coordinates: FeatureMatrix
    lift: Callable[[Tensor], Tensor]
    project: Callable[[Tensor], Tensor]


def known_row_space(features: StandardisedFeatures, generator: torch.Generator) -> RowSpace | None:
    """Find the span of the rows as `find_row_space` does, once for all that is fitted to them."""
    if _FOUND not in features.found:
        features.found[_FOUND] = find_row_space(features, generator)
    space: RowSpace | None = features.found[_FOUND]
    return space


def find_row_space(features: FeatureMatrix, generator: torch.Generator) -> RowSpace | None:
    """Find the span of the rows, if it has at most half as many dimensions as there are features.

    Args:
        features: (n_samples, n_features) float32 or float64.
        generator: of the sketch that is taken of more than `MAX_ROWS` rows, on the CPU.

    Returns:
        None where the rank is higher, the features are `MAX_RANK` or fewer, or what it takes is
        more than their room.
    """
    if features.num_features <= MAX_RANK:
        return None
    if features.num_rows <= min(MAX_ROWS, features.num_features // 2):
        return (
            None if _GRAM_BYTES * features.num_rows**2 > features.room else _of_few_rows(features)
        )
    if _SKETCH_BYTES * _ROWS * features.num_features > features.room:
        return None
    basis = row_space(features, generator)
    if basis is None or features.num_rows * basis[0].nbytes > features.room:
        return None
    return RowSpace(
        coordinates(features, basis, generator),
        lift=lambda weight: weight.double() @ basis.T.double(),
        project=lambda gradient: gradient @ basis.double(),
    )


def _of_few_rows(features: FeatureMatrix) -> RowSpace | None:
    factor, chosen = _pivoted_cholesky(_gram(features))
    if not len(chosen):
        return None
    triangle = factor[chosen]

    def lift(weight: Tensor) -> Tensor:
        # In float64: small coordinates are differences of large multiples of rows.
        factors = weight.new_zeros(len(weight), features.num_rows, dtype=torch.float64)
        factors[:, chosen] = solve(triangle, weight.double(), upper=False, left=False)
        out = factors.new_zeros(len(weight), features.num_features)
        for where, block in features.parts(_GRAM_BLOCK):
            out += take_columns(factors, where) @ block.double()
        return out

    def project(gradient: Tensor) -> Tensor:
        products = gradient.new_empty(len(gradient), features.num_rows)
        for where, block in features.parts(_GRAM_BLOCK):
            put_columns(products, where, gradient @ block.double().T)
        onto: Tensor = solve(triangle.T, products[:, chosen], upper=True, left=False)
        return onto

    return RowSpace(DenseFeatures(factor.to(features.dtype), owned=True), lift, project)


def _pivoted_cholesky(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Factorise a Gram matrix, of which only the lower triangle is read.

    Returns:
        The factor (n, rank), whose products of rows are the matrix, and the rows (rank,) that were
        pivots, in order: of these it is a lower triangle.
    """
    # PyTorch has no Cholesky with pivots. It takes a fifth of the time of `eigh`.
    from scipy.linalg.lapack import dpstrf

    least = _GRAM_OUTSIDE * max(float(gram.diagonal().max()), 0.0)
    packed, pivots, rank, _ = dpstrf(gram.cpu().numpy(), tol=least, lower=1)
    order = torch.from_numpy(pivots.astype("int64") - 1)
    factor = torch.empty(len(order), rank, dtype=torch.float64)
    factor[order] = torch.from_numpy(packed).tril_()[:, :rank]
    return factor.to(gram.device), order[:rank].to(gram.device)


def _gram(features: FeatureMatrix) -> Tensor:
    """Products of the rows among each other, (n_samples, n_samples) float64; the lower triangle.

    As many rows as there is room for are multiplied with those before them at a time.
    """
    n, size = features.num_rows, 8 * features.num_features
    some = n if n * size <= features.room else max(1, int(features.room // size))
    out = torch.zeros(n, n, dtype=torch.float64, device=features.device)
    for start in range(0, n, some):
        stop = min(start + some, n)
        view = features.rows(start, stop)
        rows = torch.cat([block.double() for block in view.blocks(_GRAM_BLOCK)])
        for where, block in features.rows(0, start).parts(_GRAM_BLOCK):
            out[start:stop, where] = rows @ block.double().T
        for first in range(0, len(rows), _GRAM_BLOCK):
            part = rows[first : first + _GRAM_BLOCK]
            low = start + first
            out[low : low + len(part), start : low + len(part)] = part @ rows[: first + len(part)].T
    return out


def row_space(features: FeatureMatrix, generator: torch.Generator) -> Tensor | None:
    """Find an orthonormal basis of the span of the rows, if they are of low rank.

    Args:
        features: (n_samples, n_features) float32 or float64.
        generator: of the sketch, on the CPU.

    Returns:
        (n_features, rank) in the dtype of `features`; None where the rank is above `MAX_RANK` or no
        less than half of the features.
    """
    num_features = features.num_features
    if num_features <= MAX_RANK:
        return None
    rows = _sketch(features, generator)
    if not bool(rows.any()) or _is_surely_high(rows, generator):
        return None
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    outside = values.clamp_min(0).cumsum(0) <= _OUTSIDE * values.sum()
    rank = len(values) - int(outside.sum())
    if rank > min(MAX_RANK, num_features // 2):
        return None
    # A second orthogonalisation: the first is as good as the smallest eigenvalue kept.
    basis: Tensor = torch.linalg.qr(rows.T @ vectors[:, len(values) - rank :]).Q
    checked = torch.randperm(features.num_rows, generator=generator)[:_CHECKED_ROWS]
    others = features.take(checked.to(features.device)).double()
    left = others - (others @ basis) @ basis.T
    if float(left.square().sum()) > 4 * _OUTSIDE * float(others.square().sum()):
        return None
    return basis.to(features.dtype)


def _is_surely_high(rows: Tensor, generator: torch.Generator) -> bool:
    """Tell whether already a few rows and columns of the sketch have more rank than `MAX_RANK`.

    The eigenvalues of their Gram matrix lie below the whole sketch's, one by one.
    """
    some = rows[: MAX_RANK + _SPARE]
    columns = torch.randperm(rows.shape[1], generator=generator)[: 2 * len(some)]
    part = some[:, columns.to(rows.device)]
    values = torch.linalg.eigvalsh(part @ part.T)
    outside = _OUTSIDE * float(torch.linalg.vector_norm(rows)) ** 2
    return len(some) > MAX_RANK and bool(values[-MAX_RANK - 1] > outside)


def coordinates(
    features: FeatureMatrix, basis: Tensor, generator: torch.Generator
) -> FeatureMatrix:
    """View rows in the basis of their span: ``features @ basis``, (n_samples, rank).

    Each row is ``z basis^T``, so a part J of the columns gives z by least squares,
    ``x_J = z basis_J^T``, at a fraction of the cost. Where J sees every direction about as well as
    its size lets expect, rounding of the features grows by no more than a small factor.

    Args:
        features: (n_samples, n_features), whose rows lie in the span.
        basis: (n_features, rank), orthonormal.
        generator: of the choice of columns, on the CPU.
    """
    num_features, rank = basis.shape
    num_chosen = _COLUMNS * rank
    if 2 * num_chosen > num_features:
        return features.transformed(basis, features.dtype)
    chosen = torch.randperm(num_features, generator=generator)[:num_chosen].sort().values
    part = basis[chosen.to(basis.device)].double()
    gram = part.T @ part
    if float(torch.linalg.eigvalsh(gram)[0]) < _SEEN * num_chosen / num_features:
        return features.transformed(basis, features.dtype)
    solution: Tensor = torch.linalg.solve(gram, part.T).T.to(features.dtype)
    columns = chosen.to(features.device)
    out = solution.new_empty(features.num_rows, rank)
    for where, block in features.parts(_BLOCK_ROWS):
        out[where] = block.index_select(1, columns) @ solution
    return DenseFeatures(out)


def _sketch(features: FeatureMatrix, generator: torch.Generator) -> Tensor:
    """Sums of rows with random factors, (_ROWS or fewer, n_features) float64, of the same span.

    Every row enters two sums: a sample of the rows would miss what few of them have, such as a
    pixel that is hardly ever on. Those that share one sum differ in the other.
    """
    size = min(_ROWS, features.num_rows)
    sums = torch.zeros(size, features.num_features, dtype=features.dtype, device=features.device)
    number, place = 1, 0
    for _, given in features.parts(size):
        for block in (given[: size - place], given[size - place :]):
            factors = torch.randn(2, len(block), 1, generator=generator).to(block)
            start = (number * _STRIDE + place) % size
            sums[place : place + len(block)].addcmul_(block, factors[0])
            # From `start` on, and past the end from the beginning.
            for to, rows in ((start, slice(0, size - start)), (0, slice(size - start, size))):
                part = block[rows]
                sums[to : to + len(part)].addcmul_(part, factors[1][rows])
            place += len(block)
            if place == size:
                number, place = number + 1, 0
    return sums.double()
