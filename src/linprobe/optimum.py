r"""What the certificate says of the exact optimum's predictions on the test split.

Let (W, b) be the probe, b the best bias for W, (W*, b*) the exact optimum of
``P(W, b) = L(W, b) + l2/2 ||W||_F^2`` on the training rows, ``dW = W* - W``, ``db = b* - b`` and
``G = grad_W P(W, b)``. For a sample x and classes a, c the margin ``z_a - z_c`` moves by

    m_x = v x + beta,      v = dW_a - dW_c,    beta = db_a - db_c.

**Weights.** With the bias minimised out, P is l2-strongly convex in W and its gradient at W is G
(that of b is zero). Strong monotonicity of the gradient gives ``l2 ||dW||^2 <= ||G|| ||dW||``, so

    ||dW||_F <= r = ||G||_F / l2 = sqrt(2 gap / l2),      ||v|| <= sqrt(2) r.

**Bias.** P is not strongly convex in b; what binds b is that the training predictions can't move
much. The same monotonicity, with the loss kept, is an identity for exponential families:

    sum_i s_i [KL(p_i || p*_i) + KL(p*_i || p_i)] = -<G, dW> - l2 ||dW||^2
                                                 <= ||G|| rho - l2 rho^2 <= l2 r^2 / 4 = gap / 2

where ``rho = ||dW||``. For one sample and two classes, the chain rule of the divergence leaves
``KL(p_i || p*_i) >= (p_a + p_c) KL(Bernoulli(pi) || Bernoulli(pi*))`` with
``pi = p_a / (p_a + p_c)``, whose logit moves by ``m_i``. The logistic loss has
``|f'''| <= f''`` (Bach, Self-concordant analysis for logistic regression, 2010), hence that term
is at least ``p_a p_c / (p_a + p_c) B(m_i)`` with ``B(t) = exp(-|t|) + |t| - 1``, convex. For
``c_i <= s_i p_a p_c / (p_a + p_c)``, ``C = sum_i c_i`` and the weighted mean ``<.>`` over c_i / C,
Jensen's inequality gives ``B(<m>) <= gap / (2 C)``, and ``B(t) >= t^2 / (2 + t)`` inverts to

    |<m>| <= h = (y + sqrt(y^2 + 8 y)) / 2,      y = gap / (2 C).

**Both.** ``m_x - <m> = v (x - <x>)``, so that

    |m_x| <= sqrt(2) r ||x - <x>_ac|| + h_ac.

A test sample whose own margin over every other class exceeds this bound is classified correctly
by the exact optimum; one that some class beats by more than it is misclassified; nobody knows of
the others. No curvature of the problem enters, so the bound holds however far the optimum is; the
price is that it is wide unless the gap is well below l2: r falls with the square root of the gap.

``c_i = 0`` is allowed, so that only the least sure training rows are read for <x>.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from linprobe.problem import Standardisation, bias_hessian
from linprobe.solvers.base import Point

MAX_CLASSES = 100
_ROWS = 2048
_BLOCK_BYTES = 2 * 2**20
_ROUNDING = 1e-5  # of float32 inner products, relative to the squared lengths
_MAX_NEWTON_STEPS = 50
_BALANCED = 1e-13  # residual sum of a class at which its bias counts as the best


@dataclass(frozen=True)
class OptimumError:
    """Interval that holds the exact optimum's test error rate.

    Attributes:
        low: share of test samples that it certainly misclassifies.
        high: one minus the share that it certainly classifies correctly.
        num_undecided: test samples between.
    """

    low: float
    high: float
    num_undecided: int

    @classmethod
    def unknown(cls, num_test: int) -> "OptimumError":
        """Nothing is known."""
        return cls(0.0, 1.0, num_test)


class OptimumBall:
    """Where the exact optimum can be, as seen from the training rows; see the module.

    Args:
        features: (n_train, n_features), standardised.
        labels: (n_train,) int64 in 0..n_classes-1; every class occurs.
        logits: (n_classes, n_train) of the probe without its bias; what rounding they carry
            is beyond the bound.
        bias: (n_classes,) of the probe, about the best for its weight.
        l2: the penalty.
        grad_norm: ``||grad_W P||_F`` at the best bias, as certified.

    Attributes:
        radius: bound of ``||W* - W||_F``.
        bias_shift: (n_classes,) float64, from the given bias to the best one.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        logits: Tensor,
        bias: Tensor,
        l2: float,
        grad_norm: float,
    ) -> None:
        self.radius = grad_norm / l2
        best_bias, probabilities = _best_bias(logits.double(), labels, bias.double())
        self.bias_shift = best_bias - bias
        self._divergence = l2 * self.radius**2 / 4
        unsure = 1 - probabilities.square().sum(0)
        rows = unsure.topk(min(_ROWS, len(labels))).indices
        self._rows = features[rows]
        self._probabilities = probabilities[:, rows]
        self._each = 1 / len(labels)

    @classmethod
    def of(
        cls, features: Tensor, labels: Tensor, point: Point, l2: float, grad_norm: float
    ) -> "OptimumBall | None":
        """Of a solver's point; None where no bound can be had.

        That is without a finite certificate, and for more than `MAX_CLASSES` classes, where the
        pairs of classes would cost more than solving.
        """
        if not math.isfinite(grad_norm) or len(point.bias) > MAX_CLASSES:
            return None
        return cls(features, labels, point.logits, point.bias, l2, grad_norm)

    def margin_bounds(self, own: int, standardised: Tensor) -> Tensor:
        """Bound of how far the margins of class `own` over every class can move.

        Args:
            own: a class.
            standardised: (n, n_features).

        Returns:
            (n_classes, n) float64; meaningless for `own` itself.
        """
        return self._bounds(self._centres(own), standardised)

    def _bounds(self, centres: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        centre, h = centres
        return math.sqrt(2) * self.radius * _distances(centre, x) + h[:, None]

    def _centres(self, own: int) -> tuple[Tensor, Tensor]:
        """The means <x> and the bounds h of class `own` against every class.

        Returns:
            (n_classes, n_features), standardised, and (n_classes,) float64; zero for `own`.
        """
        p = self._probabilities
        weight = (p[own] * p / (p[own] + p)).nan_to_num(nan=0.0) * self._each  # c_i a class
        weight[own] = 0.0
        total = weight.sum(1)
        shares = weight / total.clamp_min(torch.finfo(total.dtype).tiny)[:, None]
        y = self._divergence / total
        h = (y + (y * y + 8 * y).sqrt()) / 2
        h[own] = 0.0
        return shares.to(self._rows.dtype) @ self._rows, h

    def error_interval(
        self, logits: Tensor, labels: Tensor, features: Tensor, standardisation: Standardisation
    ) -> OptimumError:
        """Bound the exact optimum's error rate on a test split.

        Args:
            logits: (n_classes, n_test) float64 of the probe, bias included.
            labels: (n_test,) int64; -1: a class that the probe does not know.
            features: (n_test, n_features), raw, finite.
            standardisation: of the training features.
        """
        num_right, num_wrong = 0, int((labels < 0).sum())
        logits = logits + self.bias_shift[:, None]
        mean = standardisation.mean.to(features.dtype)
        rows = max(1, _BLOCK_BYTES // (features.element_size() * features.shape[1]))
        for own in range(len(logits)):
            centres = self._centres(own)
            for index in (labels == own).nonzero()[:, 0].split(rows):
                x = features[index].sub_(mean).mul_(standardisation.scale)
                bounds = self._bounds(centres, x)
                margins = logits[own, index] - logits[:, index]
                margins[own], bounds[own] = 1.0, 0.0
                num_right += int((margins > bounds).all(0).sum())
                num_wrong += int((margins < -bounds).any(0).sum())
        n = len(labels)
        return OptimumError(num_wrong / n, 1 - num_right / n, n - num_right - num_wrong)


def _distances(centres: Tensor, x: Tensor) -> Tensor:
    """Distances of (n_classes, n_features) to (n, n_features), rounded up, float64."""
    long, wide = (torch.linalg.vector_norm(a, dim=1).double().square() for a in (centres, x))
    squares: Tensor = long[:, None] + wide
    inner = (centres.to(x.dtype) @ x.T).double()
    squares = squares * (1 + _ROUNDING) - 2 * inner
    return squares.clamp_min(0).sqrt()


def _best_bias(logits: Tensor, labels: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Polish a bias by Newton's method; also returns the probabilities (n_classes, n)."""
    share = torch.full_like(logits[0], 1 / len(labels))
    mass = torch.bincount(labels, minlength=len(logits)).double() / len(labels)
    for _ in range(_MAX_NEWTON_STEPS):
        probabilities = (logits + bias[:, None]).softmax(0)
        residual = probabilities @ share - mass
        if float(residual.abs().max()) < _BALANCED:
            break
        hessian = bias_hessian(probabilities, share)
        gauged = hessian + hessian.diagonal().mean() / len(hessian)
        bias = bias - torch.linalg.lstsq(gauged, residual).solution
    return bias, probabilities
