"""The path of penalties: where it turns, where it goes on, and where it ends."""

from dataclasses import replace

import pytest
import torch

from linprobe import ProbeConfig, fit_probe, holdout_order
from linprobe.core.solve import DEFAULT_SOLVER
from linprobe.core.solvers.base import Status
from linprobe.probes import refit
from linprobe.probes.config import DEFAULT_L2_PATH
from tests.support.paths import walked


def hidden(size, n=1200, dtype=torch.float32, seed=0):
    """Rows whose label is told by the last of 8 columns, of that size beside deviations of 1."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    x = torch.randn(n, 8, generator=draw, dtype=torch.float64)
    x[:, -1] = size * (2 * y - 1 + 0.7 * x[:, -1])
    order = holdout_order(y, 1 / 6, draw)
    return x[order].to(dtype), y[order]


def fitted(x, y, **options):
    return fit_probe(x, y, x[:100], y[:100], ProbeConfig(scale="layer", **options))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_path_goes_on_while_that_helps(dtype):
    x, y = hidden(1e-5, dtype=dtype)
    options = {"exact": False}  # exact ones end at 1e-13
    found, fixed = fitted(x, y, **options), fitted(x, y, extend=False, **options)
    assert found.l2 < 1e-10 and not found.l2_at_edge and found.status is Status.CONVERGED
    assert found.test_error_rate < 0.12 < 0.3 < fixed.test_error_rate
    assert found.path[:9][-1].l2 == fixed.path[-1].l2 == 1e-9
    assert [p.l2 for p in found.path] == sorted((p.l2 for p in found.path), reverse=True)
    assert found.path[-1].l2 == float(f"{found.path[-1].l2:.0e}"), "by decades"


def test_a_path_ends_where_its_probe_can_no_longer_be_exact(monkeypatch):
    monkeypatch.setattr("linprobe.probes.path.EXACT_L2", 1e-12)
    x, y = hidden(1e-5)
    exact, any_gap = walked(x, y), walked(x, y, exact=False)
    assert exact.points[-1].l2 == exact.best.l2 == 1e-12 and exact.at_edge
    assert any_gap.best.l2 < 1e-12 and not any_gap.at_edge
    assert walked(x, y, l2_path=(1e-9, 1e-13)).best.l2 == 1e-13


def test_the_path_goes_up_where_that_helps():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(600, 5, generator=draw), torch.arange(600) % 2
    x += torch.where(torch.arange(600) < 500, 1, -1)[:, None] * (2 * y[:, None] - 1)
    found, fixed = walked(x, y), walked(x, y, extend=False)  # held-out rows say the opposite
    assert fixed.best.l2 == 0.1 and fixed.at_edge
    assert found.best.l2 > 100 and not found.at_edge
    assert [p.l2 for p in found.points[-2:]] == [p.l2 for p in fixed.points]


def test_a_path_that_is_given_is_not_extended():
    x, y = hidden(1e-5)
    found = fitted(x, y, l2_path=(1e-8, 1e-9))
    assert found.l2 == 1e-9 and found.l2_at_edge and len(found.path) == 2


def test_what_differs_by_less_than_its_noise_is_no_edge():
    x, y = hidden(1.0)
    found = fitted(x, y, l2_path=(1e-7, 1e-8))
    losses = [p.validation_cross_entropy for p in found.path]
    assert abs(losses[0] - losses[1]) < 1e-4 and not found.l2_at_edge


def test_a_layer_that_turned_pays_nothing():
    x, y = hidden(1.0)
    counted = [fitted(x, y, extend=extend).num_passes for extend in (False, True)]
    assert counted[0] == counted[1]


def test_a_flat_path_has_not_turned():
    x, y = hidden(1e-4)
    found = fitted(x, y, extend=False)
    losses = [p.validation_cross_entropy for p in found.path]
    assert max(losses[:4]) - min(losses[:4]) < 2e-3, "flat at first"
    assert found.l2 < 1e-7 and found.test_error_rate < 0.12


def test_float32_suffices_for_the_whole_path():
    x, y = hidden(1e-5)
    single = walked(x, y, widen=False, exact=False)
    double = walked(x.double(), y, exact=False)
    assert single.best.l2 == double.best.l2 < 1e-10 and not single.at_edge
    for one, other in zip(single.points, double.points, strict=True):
        gained = one.validation_cross_entropy - other.validation_cross_entropy
        assert abs(gained) < 1e-4


def test_where_float32_fails_the_path_goes_on_in_float64_or_ends():
    class Failing(Limited):
        @staticmethod
        def fails(l2, problem):
            return l2 < 1e-10 * 0.99 and problem.dtype == torch.float32

    x, y = hidden(1e-5)
    found = walked(x, y, solver=Failing, exact=False)
    assert found.best.l2 < 1e-12 and not found.at_edge
    assert found.features.dtype == torch.float64
    assert len({p.l2 for p in found.points}) == len(found.points)
    ended = walked(x, y, solver=Failing, widen=False, exact=False)
    assert ended.best.l2 == 1e-10 and ended.at_edge


class Limited:
    """The default solver, but for penalties at which it fails."""

    def __init__(self, problem, options):
        self.inner = DEFAULT_SOLVER(problem, options)
        self.problem, self.learned = problem, options

    @staticmethod
    def fails(l2, problem):
        return l2 < 1e-10 * 0.99

    def solve(self, l2, **options):
        found = self.inner.solve(l2, **options)
        fails = self.fails(l2, self.problem)
        return replace(found, status=Status.PRECISION_LIMIT) if fails else found


def test_a_penalty_that_was_not_solved_is_not_chosen():
    x, y = hidden(1e-5)
    found = walked(x, y, solver=Limited)
    assert found.best.l2 == 1e-10 and found.at_edge
    assert found.points[-1].status is Status.PRECISION_LIMIT and found.points[-1].l2 < 1e-10


def test_a_choice_that_cannot_be_certified_gives_way_to_a_larger_penalty(monkeypatch):
    x, y = hidden(1e-5)
    certified = fitted(x, y)
    usual = refit.certify

    def limited(*arguments, **options):
        found = usual(*arguments, **options)
        hopeless = arguments[4] < 5 * certified.l2
        return replace(found, duality_gap=1.0) if hopeless else found

    monkeypatch.setattr(refit, "certify", limited)
    found = fitted(x, y)
    assert found.l2 == pytest.approx(10 * certified.l2) and found.status is Status.CONVERGED
    assert found.duality_gap <= 1e-4


def test_standard_errors_are_those_of_paired_differences():
    x, y = hidden(1.0, dtype=torch.float64)
    found = walked(x, y, l2_path=(1e-1, 1e-3))
    held = len(y) - len(y) // 6
    losses = []
    for l2 in (1e-1, 1e-3):
        point = walked(x, y, l2_path=(l2,)).start
        logits = point.logits[:, held:] + point.bias[:, None]
        losses.append(logits.logsumexp(0) - logits.gather(0, y[None, held:])[0])
    expected = (losses[0] - losses[1]).std() / (len(y) - held) ** 0.5
    assert found.points[0].standard_error == pytest.approx(float(expected), rel=1e-2)
    assert found.points[1].standard_error == 0
    equal = walked(x, y, torch.full((len(y),), 3.0, dtype=torch.float64), l2_path=(1e-1, 1e-3))
    assert equal.points[0].standard_error == pytest.approx(float(expected), rel=1e-2)


def test_one_held_out_row_knows_no_noise():
    x, y = hidden(1e-5, n=11)
    found = walked(x, y)
    assert found.best.l2 >= DEFAULT_L2_PATH[-1] and not found.at_edge
