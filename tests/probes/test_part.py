"""A part of the rows tells where to look for the penalty."""

from dataclasses import replace
from math import inf

import pytest
import torch

from linprobe.core.features import DenseFeatures, StreamedFeatures, TensorRows
from linprobe.core.solve import DEFAULT_SOLVER
from linprobe.probes.base import Targets
from linprobe.probes.config import ProbeConfig
from linprobe.probes.holdout import holdout_order, num_held_out
from linprobe.probes.part import solve_path_of_part
from linprobe.probes.softmax import SoftmaxProbe

N, D, K = 6000, 8, 3
BUDGET = 6 * 4 * D * N / 5  # a fifth of the rows


@pytest.fixture(scope="module")
def rows():
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(K - 1, (N,), generator=generator)
    y[:7] = K - 1  # a rare class
    x = torch.randn(N, D, generator=generator)
    x[:, :K] += 1.5 * torch.nn.functional.one_hot(y, K)
    order = holdout_order(y, 1 / 6, generator)
    held = num_held_out(N, 1 / 6)
    return x[order], Targets(y[order], K, held)


def streamed(x, budget=BUDGET):
    return StreamedFeatures(TensorRows(x), budget)


def test_the_probe_is_that_of_all_rows_in_fewer_passes(rows):
    x, targets = rows
    said = []
    probe = SoftmaxProbe(ProbeConfig())
    found = probe.fit(streamed(x), targets, lambda *args: said.append(args))
    expected = probe.fit(DenseFeatures(x), targets)
    assert (found.status, found.l2) == (expected.status, expected.l2)
    assert found.objective == pytest.approx(expected.objective, abs=1e-7)
    assert found.num_passes < expected.num_passes
    of_part = {point.l2 for point in found.path if point.num_rows is not None}
    on_all = sorted(point.l2 for point in found.path if point.num_rows is None)
    assert {point.num_rows for point in found.path} == {None, round(5 / 6 * N / 5)}
    assert found.l2 in on_all and 3 <= len(on_all) <= 4 and len(of_part) >= 4
    assert [p.l2 for p in found.path] == sorted((p.l2 for p in found.path), reverse=True)
    assert said[-1][0] == "refit"


def test_the_walk_goes_on_where_a_neighbour_is_better(rows, monkeypatch):
    x, targets = rows
    expected = SoftmaxProbe(ProbeConfig()).fit(DenseFeatures(x), targets)
    for l2 in (1e-1, 1e-4):  # as if the part had chosen these

        def misled(features, targets, config, solver, on_solve, l2=l2):
            given = ProbeConfig(l2_path=(l2, 3 * l2))
            found = solve_path_of_part(features, targets, given, solver, on_solve)
            best = next(point for point in found.points if point.l2 == l2)
            return replace(found, best=best, at_edge=False)

        monkeypatch.setattr("linprobe.probes.refit.solve_path_of_part", misled)
        found = SoftmaxProbe(ProbeConfig()).fit(streamed(x), targets)
        assert found.l2 == expected.l2
        assert found.objective == pytest.approx(expected.objective, abs=1e-7)


def test_all_rows_are_solved_where_a_part_is_no_help(rows):
    x, targets = rows
    path = ProbeConfig().l2_path
    for features, config in (
        (DenseFeatures(x), ProbeConfig()),
        (DenseFeatures(x, room=inf), ProbeConfig()),
        (streamed(x, budget=4 * BUDGET), ProbeConfig()),  # most rows fit
        (streamed(x, budget=BUDGET / 50), ProbeConfig()),  # too few do
        (streamed(x), ProbeConfig(l2_path=path[:1])),
    ):
        given = (features, targets, config, DEFAULT_SOLVER, lambda *_: None)
        assert solve_path_of_part(*given) is None


def test_a_part_that_misleads_is_left(rows):
    x, targets = rows
    weight = torch.rand(N, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.1
    probe = SoftmaxProbe(ProbeConfig(class_weight="balanced"))
    weighted = Targets(targets.labels, K, targets.num_held_out, weight)
    found, expected = probe.fit(streamed(x), weighted), probe.fit(DenseFeatures(x), weighted)
    assert found.l2 == expected.l2
    assert found.objective == pytest.approx(expected.objective, abs=1e-7)
    # With the solves that were misled.
    assert found.num_passes > expected.num_passes + 2
