"""A scikit-learn classifier whose fit ends with a certificate: logistic regression, solved.

For features ``x_i`` in R^D, labels ``y_i`` of K classes and sample weights ``s_i`` (class weights
multiplied in) of sum S, `CertifiedLogisticRegression` minimises what scikit-learn's
``LogisticRegression(C=1 / (S * l2))`` minimises, divided by ``C * S``:

    P(w, b) = 1/S sum_i s_i loss(w x_i + b, y_i) + l2/2 ||w||_F^2

with ``coef_`` w and ``intercept_`` b, which is not penalised. For K > 2 the loss is softmax
cross-entropy and w is (K, D). For K = 2 it is the logistic loss and w is (1, D): the softmax
problem with rows ``-w/2`` and ``w/2`` and the penalty doubled, because ``||W||_F^2`` of those
rows is ``||w||^2 / 2`` and the best softmax weight for a given difference of rows is that one.
So K = 2 is solved and certified as softmax regression with ``2 * l2``.
"""

import warnings
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from linprobe.core.certificate import Certificate, certify
from linprobe.core.features import DenseFeatures, FeatureMatrix, Standardisation
from linprobe.core.linalg import backproject
from linprobe.core.problem import SoftmaxRegression
from linprobe.core.scales import SCALES, Scale
from linprobe.core.solve import Attempt, CertifiedSolution, solve_certified
from linprobe.core.solvers.base import NewtonOptions, Status
from linprobe.runtime.defaults import own_defaults
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.numbers import positive_number

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state
    from sklearn.utils.class_weight import compute_class_weight
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        "linprobe.integrations.sklearn needs scikit-learn 1.7 or later: pip install "
        "'linprobe[sklearn]'"
    ) from error

Array = NDArray[np.float64]


class CertifiedLogisticRegression(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Logistic or softmax regression with a proven bound on its distance from the optimum.

    Args:
        l2: the penalty of the module's P, > 0. ``LogisticRegression(C=1 / (S * l2))`` has the
            same optimum, S being the number of samples or the sum of their weights; the fitted
            `C_` is that number.
        tol: duality gap (nats) at which the fit counts as solved. The weights are then within
            ``sqrt(2 * tol / l2)`` of the optimum's.
        max_passes: passes over the data before the fit gives up with a ConvergenceWarning.
        standardize: state the penalty for features that are centred and scaled to a mean squared
            length of 1, which makes `l2` comparable between layers: divided by one number
            ("layer"), each column by its own deviation ("feature"), or as suits the columns
            ("auto", which True stands for), as `linprobe.ProbeConfig` has it. `coef_` and
            `intercept_` take raw features either way.
        class_weight: None, "balanced", or a dict of class to weight, as in scikit-learn.
        random_state: of the solver's row samples, which change the way to the optimum only.

    Attributes:
        classes_: (K,) labels in sorted order.
        coef_: (1, D) for two classes, else (K, D), float64.
        intercept_: (1,) or (K,); -inf for a class whose samples all have weight zero.
        duality_gap_: certified bound of P(coef_, intercept_) - P* in nats.
        objective_: P(coef_, intercept_) in nats.
        status_: "converged", "max_passes_reached" or "precision_limit".
        n_iter_: steps of the solver.
        num_passes_: passes over the data.
        C_: see `l2`; for standardised features where `standardize` is set.
        n_features_in_: D.
    """

    def __init__(
        self,
        l2: float = 1e-3,
        *,
        tol: float = 1e-10,
        max_passes: int = 1000,
        standardize: bool | Scale = False,
        class_weight: dict[Any, float] | str | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.l2 = l2
        self.tol = tol
        self.max_passes = max_passes
        self.standardize = standardize
        self.class_weight = class_weight
        self.random_state = random_state

    @own_defaults()
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Solve and certify.

        Args:
            X: (n_samples, n_features), dense and finite.
            y: (n_samples,) labels of any type that scikit-learn takes.
            sample_weight: (n_samples,), non-negative; a whole number is as good as that many
                copies of the sample.

        Raises:
            ValueError: Parameters or data that cannot be used, or fewer than two classes.
        """
        penalty, tol, max_passes = self._check_parameters()
        X, y = self._validated(X, y)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        weight = _check_sample_weight(
            sample_weight, X, dtype=np.float64, copy=True, ensure_non_negative=True
        )
        self._apply_class_weight(weight, y)
        used = weight > 0
        present, compact = np.unique(labels[used], return_inverse=True)
        if len(present) < 2:
            raise ValueError(
                f"the samples of positive weight are all of one class, {self.classes_[present]}; "
                "expected samples of two classes or more"
            )
        self.C_ = 1 / (float(weight.sum()) * penalty)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        scale: Scale = "auto" if self.standardize is True else self.standardize or "layer"
        data = _Data.of(X[used], compact, weight[used], len(present), scale)
        l2 = data.softmax_l2(penalty, standardize=bool(self.standardize))
        if not data.standardisation.exists or not 0 < l2 < np.inf:
            raise ValueError(
                f"features of this size and l2 {self.l2!r} are beyond what float64 holds; "
                "expected features nearer 1: multiply them by a number"
            )
        fit = _solve(data, l2, tol, max_passes, seed)
        self._keep(data, present, fit)
        return self

    def decision_function(self, X: Any) -> Array:
        """Logits: (n_samples,), positive for ``classes_[1]``, for two classes; else (n, K)."""
        check_is_fitted(self)
        X = self._validated(X, reset=False)
        logits: Array = X @ self.coef_.T + self.intercept_
        return logits[:, 0] if len(self.classes_) == 2 else logits

    def predict(self, X: Any) -> NDArray[Any]:
        """The likeliest class of each sample: (n_samples,)."""
        logits = self.decision_function(X)
        index = (logits > 0).astype(int) if logits.ndim == 1 else logits.argmax(1)
        predicted: NDArray[Any] = self.classes_[index]
        return predicted

    def predict_log_proba(self, X: Any) -> Array:
        """Log-probabilities (n_samples, K) in the order of `classes_`."""
        logits = self.decision_function(X)
        if logits.ndim == 1:
            return -np.logaddexp(0, np.stack([logits, -logits], axis=1))
        shifted = logits - logits.max(1, keepdims=True)
        log_proba: Array = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        return log_proba

    def predict_proba(self, X: Any) -> Array:
        """Probabilities (n_samples, K) in the order of `classes_`."""
        return np.exp(self.predict_log_proba(X))

    def _check_parameters(self) -> list[float]:
        numbers: list[float] = []
        for name in ("l2", "tol", "max_passes"):
            try:
                numbers.append(positive_number(name, getattr(self, name)))
            except LinprobeError as error:
                raise ValueError(str(error)) from error
        if self.standardize not in (False, True, *SCALES):
            known = ", ".join(map(repr, SCALES))
            raise ValueError(
                f"standardize is {self.standardize!r}; expected False, True or one of: {known}"
            )
        return numbers

    def _validated(self, X: Any, *y: Any, reset: bool = True) -> Any:
        try:
            return validate_data(self, X, *y, dtype=[np.float64, np.float32], reset=reset)
        except ValueError as error:
            values = np.asarray(X)
            if values.ndim != 2 or values.dtype.kind != "f":
                raise
            rows = np.flatnonzero(~np.isfinite(values).all(1))
            if not len(rows):
                raise
            raise ValueError(
                f"{len(rows):,} of {len(values):,} rows of X (the first is row {rows[0]}, counted "
                f"from 0) hold NaN or infinity as {values.dtype}; leave such rows out, or mend "
                "what gives them (float16 ends at 65,504)"
            ) from error

    def _apply_class_weight(self, weight: Array, y: NDArray[Any]) -> None:
        """Multiply the weight of each sample by that of its class, in place."""
        kept = weight > 0  # "balanced" counts no class that has no mass
        if self.class_weight is None or not kept.any():
            return
        classes, labels = np.unique(y[kept], return_inverse=True)
        weight[kept] *= compute_class_weight(
            self.class_weight, classes=classes, y=y[kept], sample_weight=weight[kept]
        )[labels]

    def _keep(self, data: "_Data", present: NDArray[np.intp], fit: CertifiedSolution) -> None:
        weight, bias = data.standardisation.to_raw(fit.point.weight, fit.point.bias)
        coef = np.zeros((len(self.classes_), weight.shape[1]))
        intercept = np.full(len(self.classes_), -np.inf)
        coef[present], intercept[present] = weight.numpy(), bias.numpy()
        if len(self.classes_) == 2:
            coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
        self.coef_, self.intercept_ = coef, intercept
        self.duality_gap_ = fit.certificate.duality_gap
        self.objective_ = fit.certificate.objective
        self.status_ = str(fit.status)
        self.n_iter_, self.num_passes_ = fit.num_steps, fit.num_passes
        if fit.status is not Status.CONVERGED:
            warnings.warn(
                f"{self.status_}: the duality gap is {self.duality_gap_:.1e} nats, tol "
                f"{self.tol:.1e}; raise tol, l2 or max_passes, or scale the features",
                ConvergenceWarning,
                stacklevel=3,
            )


class _Data(NamedTuple):
    """Samples of positive weight, their classes numbered without gaps.

    Attributes:
        raw: (n, D) features as given.
        features: standardised, with weighted mean 0 and weighted mean squared length 1.
        labels: (n,) int64.
        sample_weight: (n,) float64.
        standardisation: from `raw` to `features`.
        num_classes: K.
    """

    raw: Tensor
    features: Tensor
    labels: Tensor
    sample_weight: Tensor
    standardisation: Standardisation
    num_classes: int

    @classmethod
    def of(
        cls,
        features: Array,
        labels: NDArray[np.intp],
        weight: Array,
        num_classes: int,
        scale: Scale,
    ) -> "_Data":
        raw, s = torch.from_numpy(features), torch.from_numpy(weight)
        x = raw.clone()
        rough = Standardisation.fit_(x, scale)  # of equal weights: brings any scale near 1
        # What equals copies of samples in P should also take the same way to its minimum.
        share = (s / s.sum()).to(x.dtype)
        mean = backproject(share[None], x)[0]
        x -= mean
        unit = _unit(x, share, each=rough.kind == "feature")
        x *= unit.to(x.dtype)
        old = torch.as_tensor(rough.scale, dtype=torch.float64)
        shift = torch.where(old > 0, mean.double() / old, 0.0)
        new = old * unit
        standardisation = Standardisation(rough.mean + shift, new if new.ndim else float(new))
        y = torch.from_numpy(labels).long()
        return cls(raw, x, y, s, standardisation, num_classes)

    def softmax_l2(self, l2: float, *, standardize: bool) -> float:
        """The penalty of the softmax problem on `features` that is the one asked for."""
        twice = 2 if self.num_classes == 2 else 1
        scale = 1.0 if standardize else float(self.standardisation.scale)
        return twice * l2 * scale * scale

    def in_float64(self) -> Tensor:
        """The standardised features, exactly."""
        return (self.raw.double() - self.standardisation.mean) * self.standardisation.scale


def _unit(x: Tensor, share: Tensor, *, each: bool) -> Tensor:
    """Factor that centred rows are multiplied by, one number or one for each column, float64."""
    if not each:
        square = share.double() @ torch.linalg.vector_norm(x, dim=1).double().square()
        return torch.where(square > 0, square, 1.0) ** -0.5
    variance = share.double() @ x.double().square()
    total = variance * int((variance > 0).sum())
    return torch.where(variance > 0, total, torch.inf) ** -0.5


def _solve(data: _Data, l2: float, tol: float, max_passes: float, seed: int) -> CertifiedSolution:
    """Solve in the precision of the features and, where that is not enough, in float64."""

    def problem(features: FeatureMatrix) -> SoftmaxRegression:
        return SoftmaxRegression(features, data.labels, data.num_classes, data.sample_weight)

    def check(weight: Tensor, bias: Tensor) -> Certificate:
        return certify(
            *(data.raw, data.labels, weight, bias, l2),
            sample_weight=data.sample_weight,
            standardisation=data.standardisation,
        )

    def centred(weight: Tensor) -> Tensor:
        return weight - weight.mean(0)  # changes no probability and lessens the penalty

    attempts = [Attempt(lambda: DenseFeatures(data.features), tol, centred)]
    if data.features.dtype != torch.float64:
        attempts.append(Attempt(lambda: DenseFeatures(data.in_float64()), tol, centred))
    options = NewtonOptions(seed=seed)
    return solve_certified(
        attempts, problem, check, l2, tol=tol, max_passes=max_passes, options=options
    )
