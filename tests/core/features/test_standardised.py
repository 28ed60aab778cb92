"""Standardisation: by one number for the layer, by one for each column, and by what suits."""

import pytest
import torch

from linprobe.core.certificate import certify
from linprobe.core.features import DenseFeatures, Standardisation, standardised


def columns(*deviations, n=400, mean=0.0, dtype=torch.float32, seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(n, len(deviations), generator=draw, dtype=torch.float64)
    return (mean + x * torch.tensor(deviations, dtype=torch.float64)).to(dtype)


def test_layer_scale_keeps_the_geometry():
    raw = columns(1.0, 2.0, 3.0, mean=5.0)
    x = raw.clone()
    s = Standardisation.fit_(x, "layer")
    assert s.kind == "layer" and isinstance(s.scale, float)
    torch.testing.assert_close(x, (raw - raw.mean(0)) * s.scale)
    assert float(x.double().square().sum(1).mean()) == pytest.approx(1, rel=1e-6)
    torch.testing.assert_close(s.deviation, raw.double().std(0, correction=0), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_feature_scale_gives_each_column_the_same_variance(dtype):
    raw = columns(1e-12, 1.0, 1e9, 3.0, dtype=dtype)
    raw[:, 3] = 7.0
    x = raw.clone()
    s = Standardisation.fit_(x, "feature")
    assert s.kind == "feature"
    torch.testing.assert_close(x[:, :3].double().square().mean(0), torch.full((3,), 1 / 3).double())
    assert not bool(x[:, 3].any()) and float(s.scale[3]) == 0, "a constant counts for nothing"
    torch.testing.assert_close(s.apply(raw), x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", ["layer", "feature"])
def test_a_probe_of_raw_features_has_the_certificate_of_the_standardised_ones(scale):
    raw, y = columns(0.1, 5.0, 2.0, mean=1.0, dtype=torch.float64), torch.arange(400) % 2
    x = raw.clone()
    s = Standardisation.fit_(x, scale)
    weight, bias = torch.randn(2, 3, dtype=torch.float64), torch.tensor([0.3, -0.3]).double()
    one = certify(x, y, weight, bias, 1e-2)
    two = certify(raw, y, weight, bias, 1e-2, standardisation=s)
    assert two.duality_gap == pytest.approx(one.duality_gap, rel=1e-9)
    torch.testing.assert_close(two.gradient, one.gradient)
    folded, shift = s.to_raw(weight, bias)
    torch.testing.assert_close(raw @ folded.T + shift, x @ weight.T + bias)


@pytest.mark.parametrize(
    ("deviations", "kind"),
    [
        ([1.0] * 64 + [100.0], "feature"),
        ([1.0] * 64 + [1e4], "feature"),
        ([1.0] * 62 + [1e4] * 3, "feature"),
        ([1.0] * 64 + [30.0], "layer"),
        ([1.0] * 40 + [1e4] * 24, "layer"),
        ([1.0, 5.0], "layer"),
        ([1.0, 1e3], "feature"),
        ([3.0], "layer"),
        ([1 / (j + 1) for j in range(100)], "layer"),
        ([0.0] * 64 + [1.0] * 3, "layer"),
    ],
)
def test_auto_scales_each_column_where_few_hold_the_variance(deviations, kind):
    assert standardised(DenseFeatures(columns(*deviations)), "auto").standardisation.kind == kind


def test_a_large_constant_column_does_not_make_the_others_constant():
    raw = columns(*[0.01] * 4, 0.0, dtype=torch.float32)
    raw[:, 4] = 1e6
    for scale in ("auto", "layer", "feature"):
        x = standardised(DenseFeatures(raw), scale)
        (rows,) = x.blocks(400)
        assert float(rows.double().square().sum(1).mean()) == pytest.approx(1, rel=1e-5)
        assert x.rounding < 1e-3 and not x.rounded


def test_rounding_of_the_mean_is_constant():
    raw = torch.full((1000, 3), 0.1) + torch.tensor([0.0, 0.3, 1e3])
    x = standardised(DenseFeatures(raw), "auto")
    assert not any(bool(block.any()) for block in x.blocks(256))
    assert x.rounding == float("inf") and x.rounded
    assert not standardised(DenseFeatures(torch.zeros(9, 2)), "auto").rounded


@pytest.mark.parametrize(
    ("size", "dtype"),
    [
        (1e-40, torch.float32),
        (1e38, torch.float32),
        (1e-270, torch.float64),
        (1e307, torch.float64),
    ],
)
@pytest.mark.parametrize("scale", ["layer", "feature"])
def test_features_of_any_size_are_brought_to_one(size, dtype, scale):
    x = columns(1.0, 0.5, 0.2, dtype=torch.float64, n=5000).clamp(-1.6, 1.6).mul(size).to(dtype)
    s = Standardisation.fit_(x, scale)
    assert s.exists and float(x.double().square().sum(1).mean()) == pytest.approx(1, rel=1e-3)


def test_numbers_below_those_that_have_an_inverse_can_not_be_scaled():
    assert not Standardisation.fit_(columns(1e-310, 1e-311, dtype=torch.float64)).exists


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_values_are_judged_by_the_dtype_that_they_were_born_in(dtype):
    x = columns(*[0.2] * 8, mean=100.0).to(dtype)
    ordinary = columns(*[1.0] * 8, mean=3.0).to(dtype)
    for given in (x, x.float(), x.double()):
        assert standardised(DenseFeatures(given), "auto").rounded
    assert standardised(DenseFeatures(x.float(), born=dtype)).rounded
    for given in (ordinary, ordinary.float()):
        assert not standardised(DenseFeatures(given), "auto").rounded


def test_whole_numbers_are_not_taken_for_rounded_ones():
    x = 100 + (columns(1.0, 1.0) > 0).float()
    assert not standardised(DenseFeatures(x)).rounded
    assert not standardised(DenseFeatures(x.double(), born=torch.int64)).rounded


@pytest.mark.parametrize("scale", ["layer", "feature", "auto"])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_weighted_statistics_are_those_of_copies(scale, size):
    draw = torch.Generator().manual_seed(0)
    x = size * (torch.randn(700, 4, generator=draw) + 5)
    times = torch.randint(1, 4, (700,), generator=draw)
    copies = x.repeat_interleave(times, 0)
    weighted = Standardisation.fit_(x, scale, times)
    plain = Standardisation.fit_(copies, scale)
    torch.testing.assert_close(weighted.mean, plain.mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(weighted.deviation, plain.deviation, rtol=1e-5, atol=0)
    one, other = (torch.as_tensor(s.scale) for s in (weighted, plain))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=0)
    share = times.double() / times.sum()
    assert float((share @ x.double()).abs().max()) < 1e-5
    assert float(share @ x.double().square().sum(1)) == pytest.approx(1, abs=1e-5)


def test_constant_columns_stay_constant_under_weights():
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, 1:] = torch.tensor([5.1, 1e9 / 3], dtype=torch.float64)
    s = Standardisation.fit_(x, "feature", torch.rand(500) + 0.1)
    assert torch.equal(s.mean[1:], torch.tensor([5.1, 1e9 / 3], dtype=torch.float64))
    assert isinstance(s.scale, torch.Tensor)
    assert not s.scale[1:].any()
    assert not x[:, 1:].any()
