"""The span of the rows: found where it is small, refused where it is not."""

import pytest
import torch

from linprobe.core import row_space as rowspace
from linprobe.core.features import DenseFeatures, Standardisation
from linprobe.core.row_space import RowSpace, find_row_space, row_space
from linprobe.probes.config import ProbeConfig
from linprobe.probes.softmax import fit_probe


def low_rank(num_rows, num_features, rank, noise=0.0):
    generator = torch.Generator().manual_seed(0)
    inside = torch.randn(num_rows, rank, generator=generator, dtype=torch.float64)
    inside *= torch.logspace(0, -3, rank, dtype=torch.float64)
    features = inside @ torch.randn(rank, num_features, generator=generator, dtype=torch.float64)
    features += noise * torch.randn(features.shape, generator=generator)
    Standardisation.fit_(features)
    return inside, features


@pytest.fixture
def small(monkeypatch):
    """Ranks up to 20, found from 40 rows."""
    monkeypatch.setattr(rowspace, "MAX_RANK", 20)
    monkeypatch.setattr(rowspace, "_ROWS", 40)
    monkeypatch.setattr(rowspace, "_CHECKED_ROWS", 10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_rows", [15, 300])  # fewer rows than features are a row space too
def test_basis_spans_the_rows(small, dtype, num_rows):
    _, features = low_rank(num_rows, 60, 12)
    features = features.to(dtype)
    basis = row_space(DenseFeatures(features), torch.Generator().manual_seed(1))
    assert basis.dtype == dtype
    # One is lost to float32 rounding at most; centring takes none from the span.
    assert 11 <= basis.shape[1] <= 12
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1], dtype=dtype))
    outside = features - (features @ basis) @ basis.T
    assert float(outside.square().sum()) <= 1e-11 * float(features.square().sum())


def test_no_basis_where_the_rank_is_high_or_the_layer_small(small):
    generator = torch.Generator().manual_seed(1)
    assert row_space(DenseFeatures(low_rank(300, 60, 12, noise=1e-4)[1]), generator) is None
    assert row_space(DenseFeatures(low_rank(300, 60, 30)[1]), generator) is None
    assert row_space(DenseFeatures(low_rank(300, 20, 5)[1]), generator) is None
    assert row_space(DenseFeatures(torch.zeros(300, 60)), generator) is None


def test_directions_that_single_rows_have_are_found(small):
    """Six of 300 rows, two of which share a sum of the sketch."""
    _, features = low_rank(300, 60, 5)
    rare = torch.tensor([3, 43, 44, 90, 161, 299])
    features[rare] += torch.randn(6, 60, generator=torch.Generator().manual_seed(2))
    basis = row_space(DenseFeatures(features), torch.Generator().manual_seed(1))
    assert basis.shape[1] == 11
    outside = features - (features @ basis) @ basis.T
    assert float(outside.square().sum()) <= 1e-20 * float(features.square().sum())


def test_rows_that_the_sketch_missed_are_noticed(small, monkeypatch):
    """Only the first rows are sketched, so a direction that all others have is missing."""
    _, features = low_rank(300, 60, 5)
    features[40:] += torch.randn(60, generator=torch.Generator().manual_seed(2))
    monkeypatch.setattr(rowspace, "_sketch", lambda rows, _: rows.values[:40].double())
    assert row_space(DenseFeatures(features), torch.Generator().manual_seed(1)) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_few_rows_keep_their_products(small, dtype):
    """Variances over six decades, which products in float32 would lose."""
    features = low_rank(30, 60, 30)[1].to(dtype)
    space = find_row_space(DenseFeatures(features), torch.Generator())
    found = space.coordinates.values
    assert found.dtype == dtype
    assert found.shape == (30, 29)  # one is lost by centring
    torch.testing.assert_close(found @ found.T, features @ features.T)
    weight = torch.randn(3, 29, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    lifted = space.lift(weight)
    torch.testing.assert_close(lifted.norm(), weight.norm(), rtol=1e-6, atol=0)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {}
    torch.testing.assert_close(features.double() @ lifted.T, found.double() @ weight.T, **tolerance)


@pytest.mark.parametrize("max_rows", [0, 2048])
def test_projecting_is_the_transpose_of_lifting(small, monkeypatch, max_rows):
    monkeypatch.setattr(rowspace, "MAX_ROWS", max_rows)
    features = low_rank(300, 600, 8)[1]
    space = find_row_space(DenseFeatures(features), torch.Generator())
    generator = torch.Generator().manual_seed(4)
    weight, gradient = (
        torch.randn(3, columns, generator=generator, dtype=torch.float64)
        for columns in (space.coordinates.num_features, 600)
    )
    torch.testing.assert_close(
        (space.lift(weight) * gradient).sum(), (weight * space.project(gradient)).sum()
    )


def test_no_coordinates_of_rows_that_are_all_zero(small):
    assert find_row_space(DenseFeatures(torch.zeros(10, 60)), torch.Generator()) is None


@pytest.mark.parametrize("max_rows", [0, 2048])
def test_a_probe_of_low_rank_is_the_probe_without_the_short_cut(small, monkeypatch, max_rows):
    monkeypatch.setattr(rowspace, "MAX_ROWS", max_rows)
    inside, features = low_rank(325, 660, 8)
    features = features[:, :600]
    labels = (inside[:, :3] + 0.3 * inside[:, 3:6]).argmax(1)
    config = ProbeConfig(l2_path=(1e-1, 1e-2, 1e-3), tol=1e-8)
    split = [(features[:300].clone(), labels[:300], features[300:], labels[300:]) for _ in "ab"]
    short = fit_probe(*split[0], config)
    monkeypatch.setattr(rowspace, "MAX_RANK", 0)
    assert row_space(DenseFeatures(features), torch.Generator()) is None
    whole = fit_probe(*split[1], config)
    assert (short.l2, short.status) == (whole.l2, whole.status)
    assert short.duality_gap <= 1e-8
    assert short.objective == pytest.approx(whole.objective, abs=2e-8)
    torch.testing.assert_close(short.weight, whole.weight, atol=1e-3, rtol=1e-3)


def test_a_direction_outside_a_basis_is_certified_and_mended(small, monkeypatch):
    """A basis that lacks what the labels depend on: the certificate sends the solver back."""
    inside, features = low_rank(400, 60, 8)
    labels = inside[:, :3].argmax(1)
    generator = torch.Generator().manual_seed(3)
    wrong = torch.linalg.qr(torch.randn(60, 3, generator=generator, dtype=torch.float64)).Q

    def found(features, _):
        return RowSpace(
            features.transformed(wrong, features.dtype),
            lambda weight: weight @ wrong.T,
            lambda gradient: gradient @ wrong,
        )

    monkeypatch.setattr("linprobe.probes.refit.known_row_space", found)
    config = ProbeConfig(l2_path=(1e-2,), tol=1e-6)
    probe = fit_probe(features[:300].clone(), labels[:300], features[300:], labels[300:], config)
    assert probe.duality_gap <= 1e-6
    assert probe.train_error_rate < 0.1


def of_rank_30(columns_with_energy):
    """10,000 rows of rank 30 in 600 columns; most of the energy where it is said."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(30, 600, generator=generator, dtype=torch.float64)
    mixing[:, columns_with_energy:] *= 1e-9
    return (torch.randn(2000, 30, generator=generator, dtype=torch.float64) @ mixing).float()


@pytest.mark.parametrize(("columns_with_energy", "from_part"), [(600, True), (60, False)])
def test_coordinates_are_those_of_all_columns(columns_with_energy, from_part, monkeypatch):
    features = of_rank_30(columns_with_energy)
    basis = torch.linalg.svd(features.double(), full_matrices=False)[2][:30].T.float()
    found = rowspace.coordinates(
        DenseFeatures(features), basis, torch.Generator().manual_seed(0)
    ).values
    exact = features.double() @ basis.double()
    assert float((found - exact).norm() / exact.norm()) < 1e-6
    # Columns that see too little of a direction are not relied on.
    asked = []
    select = torch.Tensor.index_select
    monkeypatch.setattr(torch.Tensor, "index_select", lambda *a: asked.append(1) or select(*a))
    rowspace.coordinates(DenseFeatures(features), basis, torch.Generator().manual_seed(0))
    assert bool(asked) is from_part
