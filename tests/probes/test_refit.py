"""The chosen penalty on all rows: proven soon, refined in float64 only where float32 ends."""

import pytest
import torch

from linprobe.core import solve
from linprobe.core.features import DenseFeatures, standardised
from linprobe.core.solve import DEFAULT_SOLVER
from linprobe.core.solvers.base import Status
from linprobe.probes import refit
from linprobe.probes.base import Targets
from linprobe.probes.config import ProbeConfig
from linprobe.probes.refit import Refit


def rows(smallest, n=1500, dtype=torch.float32, seed=0):
    """Rows of 8 columns that fall to a deviation of `smallest`, each telling a little."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 8, generator=draw, dtype=torch.float64)
    y = (x @ torch.randn(8, 3, generator=draw, dtype=torch.float64)).argmax(1)
    y[: n // 5] = torch.randint(3, (n // 5,), generator=draw)
    order = torch.randperm(n, generator=draw)
    scale = torch.logspace(0, float(torch.tensor(smallest).log10()), 8, dtype=torch.float64)
    return (x * scale)[order].to(dtype), y[order]


def made(x, y, **options):
    features = standardised(DenseFeatures(x), "layer", None)
    targets = Targets(y, 3, len(y) // 6)
    return Refit(features, targets, ProbeConfig(**options), DEFAULT_SOLVER, lambda *_: None)


@pytest.mark.parametrize("smallest", [1e-2, 1e-6])
def test_the_choice_is_proven_and_then_exact(smallest):
    work = made(*rows(smallest))
    path, found = work.chosen()
    assert found.status is Status.CONVERGED and found.certificate.duality_gap <= 1e-4
    exact = work.exact(path, found)
    assert exact.certificate.duality_gap < max(1e-3 * path.best.l2, 1e-15)
    assert exact.certificate.objective <= found.certificate.objective + 1e-12


def test_float64_is_taken_where_float32_does_not_suffice(monkeypatch):
    read = []
    usual = refit.refine_certified

    def limited(solution, refinement, *arguments, **options):
        read.append(refinement._problem.dtype)
        if read[-1] == torch.float32:
            return solution  # as where all is rounding
        return usual(solution, refinement, *arguments, **options)

    monkeypatch.setattr(refit, "refine_certified", limited)
    work = made(*rows(1e-2))
    path, found = work.chosen()
    exact = work.exact(path, found)
    assert read[0] == torch.float32 and set(read[1:]) == {torch.float64}
    assert exact.certificate.duality_gap < 1e-3 * path.best.l2


def test_the_last_attempt_serves_on_after_float32_is_given_up():
    work = made(*rows(1e-2))
    path, found = work.chosen()
    hard = work._solve(path, work._attempts(1e-4)[2:], None, 500)
    again = work.nearer(path, solve.replace(hard, attempt=2), 0.0)
    assert again.certificate.duality_gap <= found.certificate.duality_gap


@pytest.mark.parametrize(("least", "dtype"), [(1e-12, torch.float32), (1e-16, torch.float64)])
def test_a_given_path_is_solved_in_float64_where_float32_does_not_suffice(least, dtype):
    x, y = rows(1e-6)
    path, found = made(x, y, l2_path=(least,)).chosen()
    assert path.best.l2 == least and found.status is Status.CONVERGED
    assert path.features.dtype == dtype


def test_without_refinement_in_reach_the_solver_goes_on(monkeypatch):
    monkeypatch.setattr(refit, "refine_certified", lambda solution, *_, **__: solution)
    _, found = made(*rows(1e-6), exact=False).chosen()
    assert found.status is Status.CONVERGED and found.certificate.duality_gap <= 1e-4
