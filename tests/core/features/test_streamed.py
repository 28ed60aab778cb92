"""Streamed features: the same products, statistics, certificates and probes as in memory."""

import pytest
import torch

from linprobe.core.certificate import certify
from linprobe.core.features import DenseFeatures, FileRows, StreamedFeatures, TensorRows
from linprobe.core.features import standardised as standardise
from linprobe.core.problem import SoftmaxRegression
from linprobe.core.row_space import find_row_space
from linprobe.core.solvers.base import Status
from linprobe.core.solvers.newton import SubsampledNewton
from linprobe.probes.base import FailedProbe, Targets
from linprobe.probes.config import ProbeConfig
from linprobe.probes.softmax import SoftmaxProbe

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
BUDGETS = [1e3, 1e4, 1e9]  # blocks of one row, of some, of all


def made(n, d, k, dtype=torch.float32, seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=draw, dtype=torch.float64) * torch.logspace(0, -2, d) + 2
    noisy = x[:, : min(k, d)] + 0.5 * torch.randn(n, min(k, d), generator=draw).double()
    return x.to(dtype), noisy.argmax(1) % k


def streamed(tmp_path, x, budget=1e5, order=None):
    path = tmp_path / "x.raw"
    path.write_bytes(x.contiguous().view(torch.uint8).numpy().tobytes())
    return StreamedFeatures(FileRows(path, tuple(x.shape), x.dtype), budget, order=order)


def rises_twice(order):
    return torch.cat([part.sort().values for part in order.split([70, 20])])


@pytest.mark.parametrize("arranged", [torch.clone, rises_twice])
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_are_those_of_the_rows_in_the_order_of_the_view(tmp_path, dtype, budget, arranged):
    x, _ = made(101, 7, 3, dtype)
    order = arranged(torch.randperm(101, generator=torch.Generator().manual_seed(1))[:90])
    seen, rows = streamed(tmp_path, x, budget, order), x[order]
    rows = rows.to(seen.dtype)
    assert seen.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert (seen.num_rows, seen.num_features, seen.born) == (90, 7, dtype)
    for view, own in (
        *((seen, rows), (seen.rows(11, 64), rows[11:64]), (seen.rows(5, 6), rows[5:6])),
        (seen.rows(70, 90), rows[70:90]),
    ):
        w, r = torch.randn(3, 7).to(own), torch.randn(3, len(own)).to(own)
        torch.testing.assert_close(view.logits(w), w @ own.T)
        torch.testing.assert_close(view.backproject(r), (r @ own).double(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(view.squared_norms(), own.square().sum(1))
        index = torch.randperm(len(own))[:20]
        assert torch.equal(view.take(index), own[index])
        assert torch.equal(torch.cat([b.clone() for b in view.blocks(13)]), own)
        parts = torch.empty_like(own)
        for where, block in view.parts(13):
            assert len(block) <= 13
            parts[where] = block
        assert torch.equal(parts, own)
        matrix = torch.randn(7, 4).double()
        changed, image = view.transformed(matrix, torch.float64), own.double() @ matrix
        v, image = torch.randn(3, 4).to(own), image.to(own)
        torch.testing.assert_close(changed.logits(v), v @ image.T, rtol=1e-5, atol=1e-4)
        exact = r.double() @ image.double()
        torch.testing.assert_close(changed.backproject(r), exact, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(changed.take(index), image[index])
        torch.testing.assert_close(changed.squared_norms(), image.square().sum(1))
        torch.testing.assert_close(torch.cat(list(changed.blocks(9))), image)
        again = changed.transformed(torch.eye(4).double() * 2, torch.float64).rows(0, 1)
        torch.testing.assert_close(again.take(torch.tensor([0])), 2 * image[:1])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("scale", ["layer", "feature", "auto"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_standardisation_is_that_of_the_copy_in_memory(tmp_path, dtype, scale, weighted):
    x, _ = made(700, 6, 3, dtype)
    x[:, 5] = 3.0
    weight = torch.arange(1, 701).double() if weighted else None
    one = standardise(DenseFeatures(x), scale, weight)
    two = standardise(streamed(tmp_path, x), scale, weight)
    a, b = one.standardisation, two.standardisation
    assert a.kind == b.kind and one.raw_dtype == two.raw_dtype and one.dtype == two.dtype
    tight = {"rtol": 1e-6, "atol": 1e-7}
    torch.testing.assert_close(b.mean, a.mean, **tight)
    torch.testing.assert_close(torch.as_tensor(b.scale), torch.as_tensor(a.scale), **tight)
    torch.testing.assert_close(b.deviation, a.deviation, rtol=1e-5, atol=1e-7)
    rows = torch.arange(700)
    torch.testing.assert_close(two.take(rows), one.take(rows), rtol=1e-5, atol=1e-6)
    assert standardise(two) is two


@pytest.mark.parametrize("size", [1e-160, 1e-30, 1.0, 1e30, 1e160])
def test_features_of_any_size_are_scaled(tmp_path, size):
    x = made(50, 4, 2)[0].double() * size
    seen = standardise(streamed(tmp_path, x), "layer")
    norms = seen.take(torch.arange(50)).square().sum(1)
    assert float(norms.mean()) == pytest.approx(1, rel=1e-9)


def test_constant_features_are_zero(tmp_path):
    seen = standardise(streamed(tmp_path, torch.full((9, 3), 0.1)), "layer")
    assert not bool(seen.take(torch.arange(9)).any()) and seen.standardisation.scale == 1


def both(tmp_path, x, y, k, budget=1e5, held=None, **config):
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(2))
    targets = Targets(y[order], k, len(x) // 6 if held is None else held)
    method = SoftmaxProbe(ProbeConfig(**config))
    in_memory = method.fit(DenseFeatures(x[order]), targets)
    return in_memory, method.fit(streamed(tmp_path, x, budget, order), targets)


@pytest.mark.parametrize(
    ("n", "d", "k"),
    [(300, 5, 2), (300, 20, 3), (400, 30, 40), (40, 1100, 2), (60, 3000, 3), (300, 300, 3)],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_probe_is_that_of_the_features_in_memory(tmp_path, n, d, k, dtype):
    x, y = made(n, d, k, dtype)
    one, two = both(tmp_path, x, y, k, 1e6, l2_path=(1e-1, 1e-2, 1e-3))
    assert two.status is one.status is Status.CONVERGED and two.l2 == one.l2
    assert two.duality_gap <= 1e-4 and abs(two.objective - one.objective) <= 1e-4
    assert two.validation_cross_entropy == pytest.approx(one.validation_cross_entropy, abs=1e-3)
    apart = float((two.weight - one.weight).norm() * one.standardisation.scale**-1)
    assert apart <= (2 * (one.duality_gap**0.5 + two.duality_gap**0.5)) / one.l2**0.5
    assert two.rounded == one.rounded


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_certificate_is_that_of_the_features_in_memory(tmp_path, budget):
    x, y = made(203, 9, 3)
    draw = torch.Generator().manual_seed(3)
    order = torch.randperm(203, generator=draw)
    weight, bias = torch.randn(3, 9, generator=draw).double(), torch.zeros(3).double()
    one = certify(x[order], y[order], weight, bias, 1e-3)
    two = certify(streamed(tmp_path, x, budget, order), y[order], weight, bias, 1e-3)
    assert two.duality_gap == pytest.approx(one.duality_gap, rel=1e-12)
    torch.testing.assert_close(two.gradient, one.gradient)


def test_small_penalties_are_certified_although_nothing_is_copied(tmp_path):
    x, y = made(500, 40, 3)
    order = torch.randperm(500)
    rows = standardise(streamed(tmp_path, x, 1e5, order), "layer")
    problem = SoftmaxRegression(rows, y[order], 3)
    solution = SubsampledNewton(problem).solve(1e-6, tol=1e-5, max_passes=200)
    point = solution.point
    assert solution.status is Status.CONVERGED
    certificate = certify(rows, y[order], point.weight, point.bias, 1e-6)
    assert certificate.duality_gap <= 1e-5


def test_one_nan_in_the_last_block_is_found(tmp_path):
    x, y = made(100, 4, 2)
    x[99, 3] = float("nan")
    seen = streamed(tmp_path, x, 1e3)
    failed = SoftmaxProbe().fit(seen, Targets(y, 2, 10))
    assert isinstance(failed, FailedProbe) and failed.status is Status.NONFINITE_FEATURES
    without = StreamedFeatures(TensorRows(x), 1e3, order=torch.arange(99))
    assert not isinstance(SoftmaxProbe().fit(without, Targets(y[:99], 2, 10)), FailedProbe)


def test_one_row(tmp_path):
    x = made(1, 4, 2)[0]
    seen = standardise(streamed(tmp_path, x), "layer")
    assert seen.num_rows == 1 and not bool(seen.logits(torch.ones(2, 4)).any())


def test_low_rank_is_used_where_there_is_room_for_the_coordinates():
    draw = torch.Generator().manual_seed(4)
    many = torch.randn(700, 12, generator=draw) @ torch.randn(12, 1100, generator=draw)
    few = torch.randn(30, 1100, generator=draw)
    for x in (many, few):
        found = []
        for budget in (1e3, 1e9):
            seen = StreamedFeatures(TensorRows(x), budget)
            found.append(find_row_space(seen, torch.Generator().manual_seed(0)))
        assert found[0] is None and found[1] is not None
        z = torch.cat(list(found[1].coordinates.blocks(5000)))
        size = float(x.square().sum(1).max())
        torch.testing.assert_close(z @ z[:9].T, x @ x[:9].T, rtol=0, atol=1e-4 * size)
    space = find_row_space(StreamedFeatures(TensorRows(few), 2.5e5), torch.Generator())
    lifted = space.lift(torch.ones(2, 30).double())  # by a Gram matrix of several panels
    z = torch.cat(list(space.coordinates.blocks(30)))
    torch.testing.assert_close(lifted.float() @ few.T, torch.ones(2, 30) @ z.T, rtol=1e-3, atol=0.1)


def test_rows_in_float64_are_those_of_float32_and_standardised_alike(tmp_path):
    x, _ = made(300, 5, 3, torch.float16)
    features = standardise(streamed(tmp_path, x, order=torch.randperm(300)))
    wide, index = features.in_float64(), torch.arange(300)
    assert (wide.dtype, features.dtype, wide.num_rows) == (torch.float64, torch.float32, 300)
    rows = features.take(index)
    assert torch.equal(wide.take(index), rows.double())
    assert torch.equal(wide.rows(40, 90).take(index[:50]), rows[40:90].double())
    torch.testing.assert_close(wide.squared_norms(), rows.double().square().sum(1))
    matrix = torch.randn(5, 2, dtype=torch.float64)
    changed = features.transformed(matrix, torch.float32).in_float64()
    torch.testing.assert_close(changed.take(index), rows.double() @ matrix)


def test_where_float32_does_not_suffice_streamed_rows_are_solved_in_float64(tmp_path):
    x, y = made(400, 6, 3)
    config = ProbeConfig(l2_path=(1e-4, 1e-12), tol=1e-6)
    found = SoftmaxProbe(config).fit(streamed(tmp_path, x), Targets(y, 3, 60))
    expected = SoftmaxProbe(config).fit(DenseFeatures(x), Targets(y, 3, 60))
    assert (found.status, found.l2) == (expected.status, expected.l2)
    assert found.status is Status.CONVERGED
    assert found.objective == pytest.approx(expected.objective, abs=1e-7)
