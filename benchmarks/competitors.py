"""Solvers of one and the same objective, each behind one generator of ever better solutions.

``P(W, b) = mean CE + l2 / 2 ||W||^2`` is scikit-learn's objective with ``C = 1 / (n l2)``. For two
classes scikit-learn and probekit fit one weight w and penalise ``1/2 ||w||^2``; the same optimum
in two rows is ``(-w/2, w/2)`` at twice the l2.
"""

import importlib.metadata
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.features import Problem
from benchmarks.jobs import TOL
from linprobe.core.features import DenseFeatures
from linprobe.core.problem import SoftmaxRegression
from linprobe.core.row_space import find_row_space
from linprobe.core.solve import DEFAULT_SOLVER
from linprobe.core.solvers.base import NewtonOptions, Point

_MAX_ATTEMPTS = 12
_UNLIMITED = 1_000_000
_LARGEST_TO_MEAN = 60.0  # of a gradient's components, by absolute value


@dataclass(frozen=True)
class Attempt:
    """A solution to be certified.

    Attributes:
        weight: (n_classes, n_features), or (n_layers, n_classes, n_features).
        bias: (n_classes,), or (n_layers, n_classes).
        passes: over the features since the attempt before; None where it is not known.
        setting: what the solver was told, for the record.
        from_cold: the work of earlier attempts was not used, so only this one counts.
    """

    weight: Tensor
    bias: Tensor
    passes: float | None
    setting: str
    from_cold: bool = False


Attempts = Generator[Attempt, float, None]
"""Yields solutions, is sent the certified gap of each, and ends when it knows nothing better."""

Solve = Callable[[float], Attempts]
"""Attempts at one `l2`; starts from the solution of the call before, if there was one."""


class Unavailable(Exception):
    """The competitor can't run this problem here; the message says why."""


def linprobe(problem: Problem) -> Solve:
    """Our solver, on the device of the features; layers one after the other."""
    if problem.features.ndim == 3:
        return _each_layer(problem)
    rows = DenseFeatures(problem.features)
    space = find_row_space(rows, torch.Generator().manual_seed(0))
    solved = rows if space is None else space.coordinates
    solver = DEFAULT_SOLVER(
        SoftmaxRegression(solved, problem.labels, problem.num_classes), NewtonOptions()
    )
    starts: tuple[Point, ...] = ()

    def attempts(l2: float) -> Attempts:
        nonlocal starts
        for goal in (TOL, TOL / 4, TOL / 16):
            found = solver.solve(l2, tol=goal, max_passes=1000, starts=starts)
            # A repetition starts from the last point alone: the span with it is empty.
            starts = (found.point, *starts[:1]) if goal == TOL else (found.point,)
            passes, weight = found.num_passes, found.point.weight
            lifted = weight if space is None else space.lift(weight)
            yield Attempt(lifted, found.point.bias, passes, f"tol {goal:.0e}")

    return attempts


def _each_layer(problem: Problem) -> Solve:
    layers = [Problem(x, problem.labels, problem.num_classes) for x in problem.features]

    def attempts(l2: float) -> Attempts:
        found = [next(linprobe(layer)(l2)) for layer in layers]
        passes = sum(attempt.passes or 0.0 for attempt in found)
        weights, biases = [one.weight for one in found], [one.bias for one in found]
        yield Attempt(torch.stack(weights), torch.stack(biases), passes, found[0].setting)

    return attempts


def _sklearn(name: str) -> Callable[[Problem], Solve]:
    def start(problem: Problem) -> Solve:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        warnings.simplefilter("ignore", ConvergenceWarning)
        _check_hessian(name, problem)
        data = [problem.features.numpy(), problem.labels.numpy()]
        model: Any = LogisticRegression(solver=name, max_iter=_UNLIMITED, warm_start=True)
        calls = 0

        def attempts(l2: float) -> Attempts:
            nonlocal calls
            calls += 1
            model.C = _inverse_penalty(problem, l2)
            tol, last, stalls = _first_tol(problem, l2), float("inf"), 0
            for _ in range(_MAX_ATTEMPTS):
                if calls == 1:
                    vars(model).pop("coef_", None)  # from cold
                model.set_params(tol=tol).fit(*data)
                passes = float(model.n_iter_.max()) if name == "lbfgs" else None
                setting = f"tol {tol:.1e}, {data[0].dtype}"
                weight, bias = _rows(model.coef_, model.intercept_)
                gap = yield Attempt(weight, bias, passes, setting, from_cold=calls == 1)
                stalls += gap > 0.9 * last
                if stalls == 2 and data[0].dtype == "float32":
                    data[0] = data[0].astype("float64")  # float32 has come to its end
                last = min(gap, last)
                # The gap is a square of the gradient; small steps, so as not to ask too much.
                tol *= min(0.6, max(0.15, 0.8 * sqrt(TOL / gap)))

        return attempts

    return start


def _check_hessian(name: str, problem: Problem) -> None:
    """scikit-learn's newton-cholesky forms the Hessian of all classes together, in float64."""
    rows = 1 if problem.num_classes == 2 else problem.num_classes
    size = 8.0 * (rows * (problem.features.shape[1] + 1)) ** 2
    if name == "newton-cholesky" and size > 4e9:
        raise Unavailable(f"its Hessian takes {size / 1e9:.1f} GB")


def _inverse_penalty(problem: Problem, l2: float) -> float:
    return (2 if problem.num_classes == 2 else 1) / (problem.num_samples * l2)


def _first_tol(problem: Problem, l2: float) -> float:
    """A limit of the largest gradient component that is likely to be too loose."""
    size = problem.features.shape[1] * problem.num_classes
    return _LARGEST_TO_MEAN * sqrt(2 * l2 * TOL / size)


def _rows(weight: Any, bias: Any) -> tuple[Tensor, Tensor]:
    """A row for each class, of arrays (1 or n_classes, n_features) and (1 or n_classes,)."""
    w, b = torch.as_tensor(weight).double(), torch.as_tensor(bias).double()
    return _two_rows(w, b) if len(w) == 1 else (w, b)


def _two_rows(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Two classes' weight (..., 2, n_features) of one row (..., n_features) for their contrast."""
    w, b = weight.reshape(-1, weight.shape[-1]), bias.reshape(-1)
    return torch.stack([-w, w], 1).squeeze(0) / 2, torch.stack([-b, b], 1).squeeze(0) / 2


def probekit(problem: Problem) -> Solve:
    """The package's batched Newton solver; it knows two classes only."""
    try:
        from probekit.fitters.batch.logistic import fit_logistic_batch
    except ImportError as error:
        raise Unavailable(f"not installed ({error})") from error
    if problem.num_classes != 2:
        raise Unavailable("two classes only")

    def attempts(l2: float) -> Attempts:
        x = problem.features if problem.features.ndim == 3 else problem.features[None]
        for tol in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7):
            found = fit_logistic_batch(
                x,
                problem.labels,
                c_param=_inverse_penalty(problem, l2),
                max_iter=1000,
                tol=tol,
                normalize=False,
            )
            weight, bias = (tensor.double() for tensor in found.to_tensor())
            yield Attempt(*_two_rows(weight, bias), None, f"tol {tol:.0e}", from_cold=True)

    return attempts


def _torch(make: Callable[[list[Tensor]], torch.optim.Optimizer]) -> Callable[[Problem], Solve]:
    def start(problem: Problem) -> Solve:
        x, y = problem.features, problem.labels
        weight = x.new_zeros(problem.num_classes, x.shape[1]).requires_grad_()
        bias = x.new_zeros(problem.num_classes).requires_grad_()

        def attempts(l2: float) -> Attempts:
            optimizer = make([weight, bias])
            evaluations = checked = stalls = 0
            best = float("inf")

            def closure() -> float:
                nonlocal evaluations
                evaluations += 1
                optimizer.zero_grad()
                loss = functional.cross_entropy(functional.linear(x, weight, bias), y)
                loss = loss + l2 / 2 * weight.square().sum()
                torch.autograd.backward(loss)
                return float(loss.detach())

            while stalls < 5:
                # Certificates are off the clock, but they take time too.
                while evaluations < max(checked + 20, 1.15 * checked):
                    before = evaluations
                    optimizer.step(closure)
                    if evaluations == before:
                        return
                passes, checked = float(evaluations - checked), evaluations
                copies = weight.detach().double(), bias.detach().double()
                gap = yield Attempt(*copies, passes, f"{evaluations} evaluations")
                stalls = stalls + 1 if gap > 0.99 * best else 0
                best = min(best, gap)

        return attempts

    return start


def _lbfgs(parameters: list[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.LBFGS(
        parameters,
        max_iter=20,
        history_size=10,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )


def _adam(parameters: list[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.3)


COMPETITORS: dict[str, Callable[[Problem], Solve]] = {
    "linprobe": linprobe,
    "sklearn lbfgs": _sklearn("lbfgs"),
    "sklearn newton-cg": _sklearn("newton-cg"),
    "sklearn newton-cholesky": _sklearn("newton-cholesky"),
    "probekit": probekit,
    "torch L-BFGS": _torch(_lbfgs),
    "torch Adam": _torch(_adam),
}


def version_of(package: str) -> str | None:
    """Installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
