"""The protocol of one probe: standardise, choose l2 on held-out training rows, refit, certify.

1. Features are standardised by the statistics of the training split (one scale for the layer).
2. The problem is solved on the training rows that are not held out, for a path of `l2` from large
   to small, each solution starting from those before it.
3. The `l2` with the least held-out cross-entropy is refitted on all training rows, starting from
   its solution, and certified in float64 at the weight that is returned.
4. The test split is touched once, by that weight.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from linprobe.core.certificate import Certificate, certify, float64_logits
from linprobe.core.linalg import class_logits
from linprobe.core.optimum_bounds import OptimumBounds, OptimumError
from linprobe.core.problem import SoftmaxRegression, Standardisation
from linprobe.core.row_space import coordinates, row_space
from linprobe.core.solvers.base import Point, Status
from linprobe.core.solvers.model import NewtonOptions
from linprobe.core.solvers.newton import SubsampledNewton
from linprobe.probes.holdout import num_held_out
from linprobe.runtime.errors import LinprobeError

DEFAULT_L2_PATH = tuple(10.0**-exponent for exponent in range(1, 10))

_STOP_RATIO = 1.05  # times the best held-out cross-entropy: the path has turned
_PATIENCE = 2
_FLOAT64_BYTES = 2 * 2**30  # problems up to this size are solved in float64 as a last resort
_ROUNDED = 1e-2  # of what varies
_NAN = float("nan")

OnEvent = Callable[[str, float, float, float], None]
"""Called as ``on_event(stage, l2, num_passes, duality_gap)``; stage is "path" or "refit"."""


@dataclass(frozen=True)
class ProbeConfig:
    """What is asked of a probe.

    Attributes:
        l2_path: penalties in falling order.
        tol: duality gap (nats) at which a problem counts as solved.
        validation_fraction: share of the training rows held out for choosing `l2`.
        max_passes: passes over the features allowed for each `l2`.
        seed: of the solver's row samples.
    """

    l2_path: tuple[float, ...] = DEFAULT_L2_PATH
    tol: float = 1e-4
    validation_fraction: float = 1 / 6
    max_passes: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        path = self.l2_path
        falling = all(a > b for a, b in pairwise(path))
        if not path or not falling or not path[-1] > 0:
            raise LinprobeError(f"l2_path is {path}; expected positive numbers in falling order")
        if not isinstance(self.tol, int | float) or not self.tol > 0:
            raise LinprobeError(f"tol is {self.tol!r}; expected a positive number of nats")
        if not 0 < self.validation_fraction < 1:
            raise LinprobeError(
                f"validation_fraction is {self.validation_fraction}; expected a number "
                "between 0 and 1, such as 1/6"
            )
        if self.max_passes < 1:
            raise LinprobeError(f"max_passes is {self.max_passes}; expected at least 1")


@dataclass(frozen=True)
class PathPoint:
    """One `l2` of the path, solved on the rows that are not held out.

    `duality_gap` is the solver's own; only the refit is certified.
    """

    l2: float
    validation_cross_entropy: float
    validation_error_rate: float
    duality_gap: float
    num_passes: float
    status: Status


@dataclass(frozen=True)
class FittedProbe:
    """A probe and what is known of it; error rates are fractions, cross-entropies nats.

    Attributes:
        weight: (n_classes, n_features) float64 on raw features, so that
            ``logits = raw_features @ weight.T + bias``.
        bias: (n_classes,) float64; minus infinity for a class without training samples.
        standardisation: the map to the space where `l2` is stated; ``weight / scale`` is W.
        path: the penalties tried, in order.
        num_passes: of the path and the refit together.
        test_logits: (n_classes, n_test) float64.
        optimum_error: interval of the exact optimum's test error rate, by the certificate; None:
            not computed.
        rounded: of what varies in the features, 1 % or more may be their own rounding; see
            `Standardisation.rounding`.
    """

    weight: Tensor
    bias: Tensor
    standardisation: Standardisation
    path: tuple[PathPoint, ...]
    l2: float
    l2_at_edge: bool
    status: Status
    objective: float
    duality_gap: float
    grad_norm: float
    bias_residual: float
    train_error_rate: float
    validation_error_rate: float
    test_error_rate: float
    train_cross_entropy: float
    validation_cross_entropy: float
    test_cross_entropy: float
    num_passes: float
    seconds: float
    test_logits: Tensor
    optimum_error: OptimumError | None
    rounded: bool = False


def fit_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    config: ProbeConfig | None = None,
    *,
    num_classes: int | None = None,
    on_event: OnEvent | None = None,
) -> FittedProbe:
    """Fit, certify and evaluate the probe of one layer.

    Args:
        train_features: (n_train, n_features) float32 or float64, raw; OVERWRITTEN by its
            standardised form. The last `num_held_out` rows are the held-out ones: order the
            rows by `holdout_order`.
        train_labels: (n_train,) int64.
        test_features: (n_test, n_features), raw.
        test_labels: (n_test,) int64.
        config: the protocol's numbers.
        num_classes: K; default: one more than the largest label.
        on_event: called after each solve.

    Raises:
        LinprobeError: Shapes or labels that cannot be used.
    """
    started = time.perf_counter()
    config = config or ProbeConfig()
    _check(train_features, train_labels, test_features, test_labels)
    if num_classes is None:
        num_classes = int(max(train_labels.max(), test_labels.max())) + 1
    classes = torch.unique(train_labels)
    blank = blank_probe(train_features, num_classes, len(test_labels))
    if not all_finite(train_features) or not all_finite(test_features):
        return replace(blank, status=Status.NONFINITE_FEATURES)
    compact = torch.searchsorted(classes, train_labels.contiguous())
    standardisation = Standardisation.fit_(train_features)
    bounds: OptimumBounds | None = None
    if len(classes) == 1:
        weight = train_features.new_zeros(1, train_features.shape[1]).double()
        fit = replace(blank, weight=weight, bias=weight.new_zeros(1))
        fit = replace(fit, status=Status.DEGENERATE_LABELS, standardisation=standardisation)
    else:
        fit, bounds = _Protocol(
            train_features, compact, len(classes), standardisation, config, on_event or _ignore
        ).run()
    weight, bias = _expand(fit, classes, num_classes)
    logits = float64_logits(test_features, weight) + bias[:, None]
    cross_entropy, error_rate = loss_and_error(logits, test_labels)
    optimum_error = OptimumError.unknown(len(test_labels))
    if bounds is not None:
        known = torch.isin(test_labels, classes)
        own = torch.where(known, torch.searchsorted(classes, test_labels.contiguous()), -1)
        optimum_error = bounds.error_interval(logits[classes], own, test_features, standardisation)
    return replace(
        fit,
        weight=weight,
        bias=bias,
        test_cross_entropy=cross_entropy,
        test_error_rate=error_rate,
        test_logits=logits,
        optimum_error=optimum_error,
        rounded=standardisation.rounding(train_features) > _ROUNDED,
        seconds=time.perf_counter() - started,
    )


class _Protocol:
    """Path, refit and certificate on standardised features of classes that all occur."""

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        num_classes: int,
        standardisation: Standardisation,
        config: ProbeConfig,
        on_event: OnEvent,
    ) -> None:
        self.features, self.labels, self.num_classes = features, labels, num_classes
        self.standardisation, self.config, self.on_event = standardisation, config, on_event
        generator = torch.Generator().manual_seed(config.seed)
        # A layer of low rank is solved in coordinates of its row space, and certified as it is.
        self.basis = row_space(features, generator)
        self.solved = features
        if self.basis is not None:
            self.solved = coordinates(features, self.basis, generator)
        self.num_fit = len(labels) - num_held_out(len(labels), config.validation_fraction)
        present = torch.bincount(labels[: self.num_fit], minlength=num_classes) > 0
        if not bool(present.all()):
            raise LinprobeError(
                "a class stands in the held-out rows only; order the training rows by "
                "linprobe.holdout_order, which never holds out the last sample of a class"
            )

    def run(self) -> tuple[FittedProbe, OptimumBounds | None]:
        """The probe, without what belongs to the test split, and where the optimum can be."""
        path, best, best_point, options = self._solve_path()
        point, certificate, status, passes = self._refit(best.l2, best_point, options)
        weight, bias = self.standardisation.to_raw(point.weight, point.bias)
        ends = (self.config.l2_path[0], self.config.l2_path[-1])
        fit = FittedProbe(
            weight=weight,
            bias=bias,
            standardisation=self.standardisation,
            path=tuple(path),
            l2=best.l2,
            l2_at_edge=best.l2 in ends,
            status=status,
            objective=certificate.objective,
            duality_gap=certificate.duality_gap,
            grad_norm=certificate.grad_norm,
            bias_residual=certificate.bias_residual,
            train_error_rate=certificate.error_rate,
            validation_error_rate=best.validation_error_rate,
            test_error_rate=_NAN,
            train_cross_entropy=certificate.cross_entropy,
            validation_cross_entropy=best.validation_cross_entropy,
            test_cross_entropy=_NAN,
            num_passes=passes + sum(p.num_passes for p in path),
            seconds=_NAN,
            test_logits=weight.new_empty(0),
            optimum_error=OptimumError.unknown(0),
        )
        gradient = certificate.gradient
        return fit, OptimumBounds.of(self.features, self.labels, point, best.l2, gradient)

    def _solve_path(self) -> tuple[list[PathPoint], PathPoint, Point, NewtonOptions]:
        features, labels = self.solved[: self.num_fit], self.labels[: self.num_fit]
        held_out, held_out_labels = self.solved[self.num_fit :], self.labels[self.num_fit :]
        problem = SoftmaxRegression(features, labels, self.num_classes)
        solver = SubsampledNewton(problem, NewtonOptions(seed=self.config.seed))
        share = self.num_fit / len(self.labels)  # of all rows, which num_passes counts
        path: list[PathPoint] = []
        starts: tuple[Point, ...] = ()
        for l2 in self.config.l2_path:
            solution = solver.solve(
                l2, tol=self.config.tol, max_passes=self.config.max_passes, starts=starts
            )
            point = solution.point
            starts = (point, *starts[:1])
            logits = class_logits(held_out, point.weight.to(held_out.dtype))
            cross_entropy, error_rate = loss_and_error(
                logits.double() + point.bias[:, None], held_out_labels
            )
            passes = share * solution.num_passes + (1 - share) / 2
            path.append(
                PathPoint(
                    l2, cross_entropy, error_rate, solution.duality_gap, passes, solution.status
                )
            )
            self.on_event("path", l2, passes, solution.duality_gap)
            best = min(path, key=lambda p: p.validation_cross_entropy)
            if best is path[-1]:
                best_point = replace(point, logits=torch.cat([point.logits, logits], dim=1))
                learned = solver.learned
            if _turned(path):
                break
        return path, best, best_point, learned

    def _refit(
        self, l2: float, start: Point, options: NewtonOptions
    ) -> tuple[Point, Certificate, Status, float]:
        """Solve on all rows; where the certificate disagrees with the solver, try harder."""
        passes = 0.0
        features, tol = self.features, self.config.tol
        can_double = features.dtype != torch.float64 and 8 * features.numel() <= _FLOAT64_BYTES
        attempts = [(self.solved, features.dtype, tol), (features, features.dtype, tol / 4)]
        attempts += [(features, torch.float64, tol / 2)] if can_double else []
        for solved, dtype, goal in attempts:
            problem = SoftmaxRegression(solved.to(dtype), self.labels, self.num_classes)
            solver = SubsampledNewton(problem, options)
            start = replace(start, logits=start.logits.to(dtype))
            solution = solver.solve(
                l2, tol=goal, max_passes=self.config.max_passes, starts=(start,)
            )
            passes += solution.num_passes
            point = solution.point
            if solved is not features and self.basis is not None:
                point = replace(point, weight=point.weight @ self.basis.T.double())
            certificate = certify(self.features, self.labels, point.weight, point.bias, l2)
            self.on_event("refit", l2, passes, certificate.duality_gap)
            if certificate.duality_gap <= tol:
                return point, certificate, Status.CONVERGED, passes
            if solution.status is Status.MAX_PASSES_REACHED:
                return point, certificate, solution.status, passes
            start = replace(point, logits=float64_logits(self.features, point.weight))
        return point, certificate, Status.PRECISION_LIMIT, passes


def _turned(path: list[PathPoint]) -> bool:
    """Whether held-out cross-entropy has clearly passed its minimum."""
    losses = [p.validation_cross_entropy for p in path]
    since_best = len(losses) - 1 - losses.index(min(losses))
    return losses[-1] > _STOP_RATIO * min(losses) or since_best >= _PATIENCE


def loss_and_error(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Cross-entropy (nats) and error rate of logits (n_classes, n_samples), float64."""
    own = logits.gather(0, labels[None])[0]
    wrong = logits.argmax(0) != labels
    return float((logits.logsumexp(0) - own).mean()), float(wrong.double().mean())


def _expand(fit: FittedProbe, classes: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    weight = fit.weight.new_zeros(num_classes, fit.weight.shape[1])
    bias = fit.bias.new_full((num_classes,), float("-inf"))
    weight[classes], bias[classes] = fit.weight, fit.bias
    return weight, bias


def all_finite(features: Tensor) -> bool:
    """Whether no number of features (n_samples, n_features) is NaN or infinite."""
    # The extremes carry NaN and infinity along, without a mask as large as the features.
    return all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(features))


def _check(
    train_features: Tensor, train_labels: Tensor, test_features: Tensor, test_labels: Tensor
) -> None:
    for split, x, y in (
        ("train", train_features, train_labels),
        ("test", test_features, test_labels),
    ):
        if x.ndim != 2 or not x.is_floating_point() or not x.shape[1]:
            raise LinprobeError(
                f"{split} features have shape {tuple(x.shape)} and dtype {x.dtype}; expected "
                "floating point (n_samples, n_features): flatten or pool each sample"
            )
        if y.shape != x.shape[:1] or y.dtype != torch.int64:
            raise LinprobeError(
                f"{split} labels have shape {tuple(y.shape)} and dtype {y.dtype}; expected "
                f"int64 ({len(x)},), one class number for each sample"
            )
        if len(y) < (2 if split == "train" else 1):
            raise LinprobeError(f"the {split} split has {len(y)} samples; expected more")
        if int(y.min()) < 0:
            raise LinprobeError(
                f"{split} labels hold {int(y.min())}; expected class numbers from 0 on"
            )
    if train_features.shape[1] != test_features.shape[1]:
        raise LinprobeError(
            f"train features have {train_features.shape[1]} columns, test features "
            f"{test_features.shape[1]}; expected the same layer for both splits"
        )


def blank_probe(features: Tensor, num_classes: int, num_test: int) -> FittedProbe:
    """A record that knows nothing yet."""
    weight = torch.full(
        (num_classes, features.shape[1]), _NAN, dtype=torch.float64, device=features.device
    )
    return FittedProbe(
        weight=weight,
        bias=weight[:, 0].clone() if features.shape[1] else weight.new_full((num_classes,), _NAN),
        standardisation=Standardisation(weight[0], 1.0),
        path=(),
        l2=_NAN,
        l2_at_edge=False,
        status=Status.NONFINITE_FEATURES,
        objective=_NAN,
        duality_gap=_NAN,
        grad_norm=_NAN,
        bias_residual=_NAN,
        train_error_rate=_NAN,
        validation_error_rate=_NAN,
        test_error_rate=_NAN,
        train_cross_entropy=_NAN,
        validation_cross_entropy=_NAN,
        test_cross_entropy=_NAN,
        num_passes=0.0,
        seconds=0.0,
        test_logits=weight.new_full((num_classes, num_test), _NAN),
        optimum_error=OptimumError.unknown(num_test),
    )


def _ignore(stage: str, l2: float, num_passes: float, duality_gap: float) -> None:
    """Default of `on_event`."""
