r"""Bounds of the exact optimum's predictions on the test split, from the certificate.

Let (W, b) be the probe, b the best bias for W, (W*, b*) the exact optimum of
``P(W, b) = L(W, b) + l2/2 ||W||_F^2`` on the training rows, ``dW = W* - W``, ``db = b* - b``,
``G = grad_W P(W, b)`` and ``gap = ||G||_F^2 / (2 l2)``. For a sample x and classes a, c the margin
``z_a - z_c`` moves to the optimum by

    m(x) = v x + beta,      v = dW_a - dW_c,    beta = db_a - db_c.

**What is known of (dW, db).** The gradient of P is zero at the optimum and (G, 0) here. Their
inner product with (dW, db) is, for the exponential family that softmax is, an identity:

    sum_i s_i [KL(p_i || p*_i) + KL(p*_i || p_i)] + l2 ||dW + G / (2 l2)||_F^2 = gap / 2.

P is not strongly convex in b; what binds b is the first term: training predictions can't move
much. For one sample and two classes, the chain rule of the divergence leaves
``KL(p_i || p*_i) >= (p_a + p_c) KL(Bernoulli(pi) || Bernoulli(pi*))``, ``pi = p_a / (p_a + p_c)``,
whose logit moves by m(x_i). The logistic loss has ``|f'''| <= f''`` (Bach, Self-concordant analysis
for logistic regression, 2010), so that this is at least ``p_a p_c / (p_a + p_c) B(m(x_i))`` with
``B(t) = exp(-|t|) + |t| - 1``. Two rows of a matrix hold half the square of their difference. So,
with ``u = v - v0``, ``v0 = -(G_a - G_c) / (2 l2)``, and any c_i from 0 to
``s_i p_a p_c / (p_a + p_c)``,

    sum_i c_i B(m(x_i)) + l2/2 ||u||^2 <= gap / 2.                                          (1)

**What follows for m(x).** Write ``C = sum_i c_i``, ``<x> = sum_i c_i x_i / C``, ``y = x - <x>``,
``A = sum_i c_i y_i y_i^T + l2 I``, ``lev(x)^2 = 1 / C + y^T A^-1 y``. The coefficients
``alpha_i = c_i (1 / C + y_i^T A^-1 y)`` sum to one, so ``m(x) = sum_i alpha_i m(x_i) +
v (x - sum_i alpha_i x_i)``, and Lagrange's bound of this over (1), with the conjugate
``B*(s) = |s| + (1 - |s|) log(1 - |s|)`` and the multiplier chosen best, is

    |m(x) - m0(x)| <= lev(x) / H * t,   B(t) = gap H^2 / 2,   m0(x) = -1/2 y^T A^-1 (G_a - G_c),

where H is the largest lev(x_i) of a row with ``c_i > 0``. By ``B(t) >= t^2 / (2 + t)``,
``t <= (q + sqrt(q^2 + 8 q)) / 2`` for ``q = gap H^2 / 2``. For a small gap the right side is
``sqrt(gap) lev(x)``, and m0 is a damped Newton step. The bound holds however far the optimum is.

A test sample whose own margin, moved by m0, exceeds the bound over every class is classified
correctly by the exact optimum; one that some class beats by more is misclassified; of the others
nobody knows. Rounding of the solver's logits is beyond the bound.

Only the least sure rows get ``c_i > 0``, and of these not the ones of largest leverage, which
would make H large. Where features are many, fewer rows do, and all is
computed in the space that they span; in what is orthogonal to it A is l2.

**Most samples need none of this.** With ``A >= l2 I`` and ``||x_i|| <= R`` for the rows in use,
``lev(x)^2 <= 1 / C + (||x|| + R)^2 / l2`` and ``|m0(x)| <= sqrt(gap / l2) (||x|| + R)``: one length
a sample and one C a pair of classes. Only margins within that are looked at closely.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from linprobe.core.certificate import Certificate
from linprobe.core.duals import row_blocks
from linprobe.core.features import (
    DenseFeatures,
    FeatureMatrix,
    Standardisation,
    as_features,
)
from linprobe.core.linalg import LinAlgError
from linprobe.core.pair_bounds import (
    ROUNDING,
    SLACK,
    PairBounds,
    Seen,
    reach_of,
    standardised_blocks,
)
from linprobe.core.solvers.base import Point
from linprobe.core.sums import LocalSums, Sums, anywhere, least

MAX_PAIRS = 1000  # of classes that are looked at closely, those of most open samples first
MAX_RANK = 256  # features up to this many are taken as they are
_MIN_RANK, _FEATURES_TIMES_RANK = 32, 2**18  # else so many rows, that the test split costs little
_COARSE_ROWS = 1024
_COARSE_BYTES = 16  # of each number of these rows, of their copy in float64 and its factors
_TEST_ROWS = 4096  # of (n_classes, n_test) at a time


@dataclass(frozen=True)
class OptimumError:
    """Interval that holds the exact optimum's test error rate.

    Attributes:
        low: share of test samples that it certainly misclassifies.
        high: one minus the share that it certainly classifies correctly.
        num_undecided: test samples between.
        sufficient_gap: duality gap (nats) at which these would about be decided.
    """

    low: float
    high: float
    num_undecided: int
    sufficient_gap: float = field(default=math.inf, compare=False)

    @classmethod
    def unknown(cls, num_test: int) -> "OptimumError":
        """Nothing is known."""
        return cls(0.0, 1.0, num_test)

    def pooled(self, num_test: int, sums: Sums) -> "OptimumError":
        """Put the intervals of all processes together, each of so many test samples."""
        if sums.alone:
            return self
        shares = torch.tensor([self.low, self.high, 1.0], dtype=torch.float64) * num_test
        low, high, count = sums.total(shares).tolist()
        left = int(sums.total(torch.tensor(self.num_undecided)))
        return OptimumError(low / count, high / count, left, least(sums, self.sufficient_gap))


class UnknownBounds:
    """Bounds of an optimum of which nothing is known."""

    def error_interval(
        self,
        logits: Tensor,
        labels: Tensor,
        features: Tensor | FeatureMatrix,
        standardisation: Standardisation,
    ) -> OptimumError:
        """Return the whole interval; see `OptimumBounds.error_interval`."""
        return OptimumError.unknown(len(labels))


class OptimumBounds:
    """Where the exact optimum can be, as seen from the training rows; see the module.

    Args:
        features: (n_train, n_features), standardised.
        point: weight, bias and logits (n_classes, n_train) of the probe.
        l2: the penalty.
        certificate: of the probe; its gradient G is finite.
        sample_weight: (n_train,) of the problem; default: equal.
        sums: completes sums over rows; default: all rows are here.

    Attributes:
        bias_shift: (n_classes,) float64, from the given bias to the best one.
    """

    def __init__(
        self,
        features: FeatureMatrix,
        point: Point,
        l2: float,
        certificate: Certificate,
        sample_weight: Tensor | None = None,
        sums: Sums | None = None,
    ) -> None:
        self.l2, self.gradient, sums = l2, certificate.gradient, sums or LocalSums()
        self.bias_shift = certificate.best_bias - point.bias
        predictions = _Predictions(point.logits, certificate.best_bias)
        s: float | Tensor = 1 / int(sums.total(torch.tensor(features.num_rows)))
        unsureness = predictions.impurity
        if sample_weight is not None:
            s = sample_weight.double() / sums.total(sample_weight.sum(dtype=torch.float64))
            unsureness *= s
        in_room = least(sums, features.room / (_COARSE_BYTES * features.num_features))
        some = int(min(_COARSE_ROWS, max(_MIN_RANK, in_room)))
        unsure, gathered = _most_unsure(unsureness, some, sums)
        chosen = gathered(features.take(unsure))
        self._radius = float(torch.linalg.vector_norm(chosen, dim=1).max()) * (1 + ROUNDING)
        # p_a p_c / (p_a + p_c) is no less than p_a p_c.
        p = gathered(predictions.of_rows(unsure).T).T
        each = s if isinstance(s, float) else gathered(s[unsure])
        self._coupling = p @ p.T * each if isinstance(each, float) else p * each @ p.T
        num_features, basis = features.num_features, None
        rows: FeatureMatrix = features
        of_class: Callable[[int], Tensor] = predictions.of_class
        if not sums.alone:
            rows, of_class, s = DenseFeatures(chosen), p.__getitem__, each
        if num_features > MAX_RANK:
            rank = min(MAX_RANK, max(_MIN_RANK, _FEATURES_TIMES_RANK // num_features))
            exact = chosen[:rank].double()
            basis = torch.linalg.qr(exact.T).Q
            rows = DenseFeatures((exact @ basis).to(features.dtype))
            of_class, s = p[:, :rank].__getitem__, each if isinstance(each, float) else each[:rank]
        self._pairs = PairBounds(rows, of_class, s, self.gradient, l2, basis)

    @property
    def gap(self) -> float:
        """Duality gap (nats) at the best bias."""
        return self._pairs.gap

    @classmethod
    def of(
        cls,
        features: FeatureMatrix,
        point: Point,
        l2: float,
        certificate: Certificate,
        sample_weight: Tensor | None = None,
        sums: Sums | None = None,
    ) -> "OptimumBounds | UnknownBounds":
        """Bound the optimum from a solver's point; unknown where numbers are not finite."""
        finite = math.isfinite(certificate.duality_gap) and bool(point.logits.isfinite().all())
        if anywhere(sums or LocalSums(), not finite):
            return UnknownBounds()
        return cls(features, point, l2, certificate, sample_weight, sums)

    def error_interval(
        self,
        logits: Tensor,
        labels: Tensor,
        features: Tensor | FeatureMatrix,
        standardisation: Standardisation,
    ) -> OptimumError:
        """Bound the exact optimum's error rate on a test split.

        Args:
            logits: (n_classes, n_test) float64 of the probe, bias included.
            labels: (n_test,) int64; -1: a class that the probe does not know.
            features: (n_test, n_features), raw, finite, a tensor or any `FeatureMatrix`.
            standardisation: of the training features.
        """
        features = as_features(features)
        wrong, sample, other = self._open(logits, labels, features, standardisation)
        known = labels >= 0
        # The least share of the gap that a sample needs, were its margins to stay as they are.
        share = torch.ones(len(labels), dtype=torch.float64, device=labels.device)
        num_open = torch.bincount(sample, minlength=len(labels))
        if len(sample):
            opened, place = sample.unique(return_inverse=True)
            seen = self._see(features, opened, standardisation)
            for pair, where in _pairs(labels[sample], other, len(logits)):
                rows = sample[where]
                try:
                    move, reach = self._pairs.moves(pair, seen[place[where]])
                except LinAlgError:  # l2 is far below the curvature's rounding: all stay open
                    continue
                # As the first class sees it; the second one's members have the margin turned round.
                sign = torch.where(labels[rows] == pair[0], 1.0, -1.0)
                apart = logits[pair[0], rows] - logits[pair[1], rows]
                apart += self.bias_shift[pair[0]] - self.bias_shift[pair[1]]
                margin = sign * (apart + move)
                num_open[rows] -= (margin > reach).long()
                wrong[rows] |= margin < -reach
                share[rows] = share[rows].minimum((margin / reach).square().nan_to_num(nan=0.0))
        right = known & ~wrong & (num_open == 0)
        left = ~(right | wrong)
        n, num_left, num_wrong = max(1, len(labels)), int(left.sum()), int(wrong.sum())
        sufficient = self.gap * float(share[left].min()) if num_left else self.gap
        return OptimumError(num_wrong / n, (num_wrong + num_left) / n, num_left, sufficient)

    def _open(
        self,
        logits: Tensor,
        labels: Tensor,
        features: FeatureMatrix,
        standardisation: Standardisation,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Settle all samples whose margins are wide or narrow enough for the coarse bounds.

        Returns:
            The samples that are certainly wrong, (n,) bool; and of the others, each that is open
            with each class of which it is, both (m,) int64.
        """
        floor = torch.finfo(torch.float64).tiny
        centre = 1 / self._coupling.clamp_min(floor)
        largest = (centre + (2 * self._radius) ** 2 / self.l2).sqrt()
        scaled = reach_of(self.gap * largest.square() / 2) / largest
        wrong, sample, other = labels < 0, [], []
        lengths = _lengths(features, standardisation)
        for start in range(0, len(labels), _TEST_ROWS):
            block = slice(start, start + _TEST_ROWS)
            y, z = labels[block].clamp_min(0), logits[:, block] + self.bias_shift[:, None]
            far = SLACK * lengths[block] + self._radius
            lever = (centre[:, y] + far.square() / self.l2).sqrt()
            reach = SLACK * (scaled[:, y] * lever + far * math.sqrt(self.gap / self.l2))
            margin = z.gather(0, y[None]) - z
            wrong[block] |= (margin < -reach).any(0)
            left = ~(margin > reach) & ~wrong[block]  # also where a reach is NaN
            found = left.scatter(0, y[None], False).nonzero()
            other.append(found[:, 0])
            sample.append(found[:, 1] + start)
        none = labels.new_empty(0)
        return wrong, torch.cat([none, *sample]), torch.cat([none, *other])

    def _see(self, features: FeatureMatrix, rows: Tensor, standardisation: Standardisation) -> Seen:
        """Reduce some rows (m,) of raw features to what the bounds need."""
        some = max(_COARSE_ROWS, min(len(rows), features.room // (8 * features.num_features)))
        parts = [
            self._pairs.see(features.take(part), standardisation) for part in rows.split(int(some))
        ]
        if len(parts) == 1:
            return parts[0]
        fields = ([getattr(x, name) for x in parts] for name in ("inside", "outside", "gradient"))
        return Seen(*map(torch.cat, fields))


def _most_unsure(
    unsureness: Tensor, count: int, sums: Sums
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Choose rows of all processes.

    Returns:
        Those that are here, and what gathers theirs of all processes, the most unsure first.
    """
    values, index = unsureness.topk(min(count, len(unsureness)))
    if sums.alone:
        return index, sums.gathered
    every = sums.gathered(values)
    enough = every.topk(min(count, len(every))).values.amin()
    index, values = index[values >= enough], values[values >= enough]
    order = sums.gathered(values).argsort(descending=True)
    return index, lambda rows: sums.gathered(rows)[order]


class _Predictions:
    """Probabilities of the training rows in float64, computed where they are asked for.

    Attributes:
        impurity: (n,), Gini's.
    """

    def __init__(self, logits: Tensor, bias: Tensor) -> None:
        self._logits, self._bias = logits, bias
        log_sums, impurities = [], []
        for rows in row_blocks(logits.shape[1], len(bias)):
            z = logits[:, rows].double() + bias[:, None]
            log_sums.append(z.logsumexp(0))
            impurities.append(1 - z.softmax(0).square().sum(0))
        none = bias.new_empty(0)
        self._log_sum, self.impurity = torch.cat([none, *log_sums]), torch.cat([none, *impurities])

    def of_class(self, number: int) -> Tensor:
        """Give the probability of one class for each row: (n,)."""
        return (self._logits[number].double() + self._bias[number] - self._log_sum).exp()

    def of_rows(self, index: Tensor) -> Tensor:
        """Give the probabilities of some rows: (n_classes, m)."""
        return (self._logits.index_select(1, index).double() + self._bias[:, None]).softmax(0)


def _lengths(features: FeatureMatrix, standardisation: Standardisation) -> Tensor:
    """Lengths of raw rows once they are standardised: (n,) float64."""
    out = torch.empty(features.num_rows, dtype=torch.float64, device=features.device)
    for where, block in features.parts(_TEST_ROWS):
        x = standardised_blocks(block, standardisation)
        out[where] = torch.cat([torch.linalg.vector_norm(part, dim=1) for part in x]).double()
    return out


def _pairs(
    own: Tensor, other: Tensor, num_classes: int
) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """Group entries by their pair of classes, at most `MAX_PAIRS`, the largest groups first."""
    code = torch.minimum(own, other) * num_classes + torch.maximum(own, other)
    codes, counts = code.unique(return_counts=True)
    groups = code.argsort(stable=True).split(counts.tolist())
    for index in counts.argsort(descending=True)[:MAX_PAIRS].tolist():
        yield divmod(int(codes[index]), num_classes), groups[index]
