"""Sums over rows of one process, and of several."""

from itertools import chain

import torch

from linprobe.core.problem import SoftmaxRegression
from linprobe.core.solvers.sampled_hessian import draw_rows
from linprobe.core.sums import LocalSums, SharedSums, anywhere, least
from linprobe.runtime.distributed import shared
from tests.support.ranks import run_ranks


def test_a_process_on_its_own_has_nothing_to_add():
    sums, x = LocalSums(), torch.arange(3.0)
    for same in (sums.total, sums.largest, sums.gathered, sums.agreed):
        assert same(x) is x
    starts, ends = sums.spans(torch.tensor([0.25, 0.5, 0.25]))
    assert starts.tolist() == [-1.0, 0.25, 0.75] and ends.tolist() == [0.25, 0.75, 2.0]
    assert sums.spans(x[:0])[1].shape == (0,)


def collective(parts):
    """What each operation gives in the process whose part is the one of its rank."""
    with shared() as ranks:
        values, num_first = parts[ranks.rank]
        sums = SharedSums(ranks, num_first)
        local = torch.tensor(values, dtype=torch.float64)
        starts, ends = sums.spans(local)
        rows = sums.gathered(local[:, None] * torch.tensor([1.0, -1.0]))
        flags = sums.gathered(local > 0.15)
        return {
            "total": float(sums.total(local.sum())),
            "largest": float(sums.largest(local.sum())),
            "agreed": sums.agreed(torch.tensor([ranks.rank + 5, 2])).tolist(),
            "gathered": rows.tolist(),
            "flags": flags.tolist(),
            "spans": list(zip(starts.tolist(), ends.tolist(), strict=True)),
            "anywhere": (anywhere(sums, ranks.rank == 1), anywhere(sums, False)),
            "least": least(sums, 3.0 + ranks.rank),
        }


def test_several_processes_have_the_sums_of_all_rows(tmp_path):
    # The first row of each process is fitted, the others are held out; one has none.
    parts = [([0.1, 0.2], 1), ([], 0), ([0.3, 0.4], 1)]
    results = [found for _, found, _ in run_ranks(3, tmp_path, collective, parts)]
    first, _, last = results
    for found in results:
        assert (found["total"], found["largest"]) == (1.0, 0.7)
        assert found["agreed"] == [5, 2]
        assert [row[0] for row in found["gathered"]] == [0.1, 0.2, 0.3, 0.4]
        assert [row[1] for row in found["gathered"]] == [-0.1, -0.2, -0.3, -0.4]
        assert found["flags"] == [False, True, True, True]
        assert found["anywhere"] == (True, False) and found["least"] == 3.0
    assert first["spans"] == [(-1.0, 0.1), (0.4, 0.4 + 0.2)]
    assert last["spans"] == [(0.1, 0.4), (0.4 + 0.2, 2.0)]


def drawn(cuts):
    """Rows of 300 that are drawn from the ones which each process has."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 3, generator=generator, dtype=torch.float64)
    importance = torch.rand(300, generator=generator)
    y = torch.arange(300) % 2
    with shared() as ranks:
        start, stop = cuts[ranks.rank : ranks.rank + 2]
        sums = SharedSums(ranks, stop - start) if ranks.size > 1 else LocalSums()
        problem = SoftmaxRegression(x[start:stop], y[start:stop], 2, sums=sums)
        sample = draw_rows(problem, importance[start:stop], 40, torch.Generator().manual_seed(1))
        return (start + sample.index).tolist(), sample.weight.tolist()


def test_rows_that_are_drawn_do_not_depend_on_who_has_them(tmp_path):
    rows, weights = drawn([0, 300])
    assert 30 < len(rows) <= 40
    for size, cuts in ((2, [0, 77, 300]), (3, [0, 150, 150, 300])):
        parts = [found for _, found, _ in run_ranks(size, tmp_path / str(size), drawn, cuts)]
        assert list(chain(*(index for index, _ in parts))) == rows
        torch.testing.assert_close(list(chain(*(weight for _, weight in parts))), weights)
