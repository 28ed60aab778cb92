"""``python -m benchmarks.few_rows``: probes of two classes on few rows of many features.

This is the shape of probes of language models: a thousand rows, thousands of features. linprobe's
whole probe (path, refit, certificate; with and without `exact`) is compared with scikit-learn's
sweep as it is usual there: `StandardScaler`, ten values of C from 1e-5 to 1e5 with lbfgs and at
most 1,000 iterations, the one of least error on held-out rows, and a fit on all of them. linprobe's
penalty is chosen by cross-entropy, its default, and by error rate as well. One thread each,
processor seconds. The gap of the sweep's last fit is certified for the problem that it states.

Features are drawn (`benchmarks.drawn`): Gaussian with variances that fall as a power of the
number of a direction, class means apart. linprobe scales by column here, as the sweep does.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TypeVar

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor

from benchmarks.drawn import few_rows
from linprobe import certify
from linprobe.core.features import DenseFeatures
from linprobe.probes.base import FailedProbe, FittedProbe, Targets
from linprobe.probes.config import Criterion, ProbeConfig
from linprobe.probes.softmax import SoftmaxProbe

_T = TypeVar("_T")
_PENALTIES = np.logspace(-5, 5, 10)
STRENGTHS = (0.05, 0.15, 0.5)
HEADER = (
    *("strength", "l2", "test error", "exact", "not exact"),
    *("l2 by error rate", "test error by it", "exact by it"),
    *("scikit-learn", "its gap", "its test error"),
)


def ours(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    exact: bool,
    choose_by: Criterion = "cross_entropy",
) -> FittedProbe:
    """Fit and test linprobe's probe."""
    targets = Targets(train[1], 2, len(train[1]) // 6)
    config = ProbeConfig(scale="feature", exact=exact, choose_by=choose_by)
    found = SoftmaxProbe(config).fit(DenseFeatures(train[0]), targets)
    if isinstance(found, FailedProbe):
        raise SystemExit(f"no probe: {found.reason}")
    return found.tested(*test)


def swept(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Fit scikit-learn's sweep: the duality gap of its last fit in nats, and its test error."""
    scaler = StandardScaler().fit(train[0].numpy())
    x, y = scaler.transform(train[0].numpy()), train[1].numpy()
    held = len(y) // 6
    fits = [LogisticRegression(C=c, max_iter=1000).fit(x[:-held], y[:-held]) for c in _PENALTIES]
    best = max(fits, key=lambda fit: float(fit.score(x[-held:], y[-held:])))
    last = LogisticRegression(C=best.C, max_iter=1000).fit(x, y)
    half = torch.from_numpy(last.coef_ / 2).double()
    bias = torch.from_numpy(last.intercept_ / 2).double()
    # Two classes as two rows of half the size: half the norm, so twice the penalty.
    l2 = 2 / (best.C * len(y))
    weight, bias = torch.cat([-half, half]), torch.cat([-bias, bias])
    proof = certify(torch.from_numpy(x), train[1], weight, bias, l2)
    error = 1 - last.score(scaler.transform(test[0].numpy()), test[1].numpy())
    return proof.duality_gap, float(error)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute by one thread, and let scikit-learn end before it has converged."""
    threads = torch.get_num_threads()
    # The limits restore what they found, also of PyTorch's threads: they come first.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def timed(function: Callable[[], _T]) -> tuple[_T, float]:
    """Call twice, and give the result with the processor seconds of the faster call."""
    taken = []
    for _ in range(2):
        begun = time.process_time()
        found = function()
        taken.append(time.process_time() - begun)
    return found, min(taken)


def compared(rows: int, features: int, strength: float) -> dict[str, float]:
    """Compare both on one problem."""
    train, test = (few_rows(n, features, strength, seed) for n, seed in ((rows, 1), (rows // 2, 2)))
    with one_thread():
        exact, seconds = timed(lambda: ours(train, test, exact=True))
        _, loose = timed(lambda: ours(train, test, exact=False))
        by_error, other = timed(lambda: ours(train, test, exact=True, choose_by="error_rate"))
        (gap, error), sweep = timed(lambda: swept(train, test))
    return {
        "strength": strength,
        "l2": exact.l2,
        "test_error_rate": exact.test_error_rate,
        "exact_seconds": seconds,
        "seconds": loose,
        "by_error_l2": by_error.l2,
        "by_error_test_error_rate": by_error.test_error_rate,
        "by_error_seconds": other,
        "sweep_seconds": sweep,
        "sweep_gap": gap,
        "sweep_test_error_rate": error,
    }


def cells(found: dict[str, float]) -> list[str]:
    """Write what `compared` gives under `HEADER`."""
    return [
        f"{found['strength']:g}",
        f"{found['l2']:.0e}",
        f"{found['test_error_rate']:.4f}",
        f"{found['exact_seconds']:.2f} s",
        f"{found['seconds']:.2f} s",
        f"{found['by_error_l2']:.0e}",
        f"{found['by_error_test_error_rate']:.4f}",
        f"{found['by_error_seconds']:.2f} s",
        f"{found['sweep_seconds']:.2f} s",
        f"{found['sweep_gap']:.0e}",
        f"{found['sweep_test_error_rate']:.4f}",
    ]


def measure(rows: int = 1024, features: int = 4096) -> list[dict[str, float]]:
    """Compare both on problems of several strengths."""
    return [compared(rows, features, strength) for strength in STRENGTHS]


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, each row when it is there."""
    for line in chain([header, ["---"] * len(header)], rows):
        print(f"| {' | '.join(line)} |", flush=True)


def main(words: Sequence[str] | None = None) -> None:
    """Print a row for each strength of the classes' difference."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--features", type=int, default=4096)
    parser.add_argument("--strengths", default=",".join(map(str, STRENGTHS)))
    options = parser.parse_args(words)
    strengths = map(float, options.strengths.split(","))
    print_table(HEADER, (cells(compared(options.rows, options.features, s)) for s in strengths))


if __name__ == "__main__":
    main()
