"""Statistics of rows that are never held together."""

import pytest
import torch

from linprobe.core.features import DenseFeatures, Standardisation
from linprobe.core.features.measured import measured


@pytest.mark.parametrize("scale", ["layer", "feature"])
def test_they_are_those_of_all_rows(scale):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(300, 5, generator=draw).double() * torch.tensor([1e-12, 1, 1e9, 3, 0]) + 7
    found = measured(DenseFeatures(x), scale, None)
    known = Standardisation.fit_(x.clone(), scale)
    torch.testing.assert_close(found.mean, known.mean)
    one, two = torch.as_tensor(found.scale), torch.as_tensor(known.scale)
    torch.testing.assert_close(one, two, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.deviation, known.deviation, rtol=1e-6, atol=0)


def test_numbers_at_the_ends_of_float64_have_a_scale():
    for size in (1e-300, 1e300):
        x = torch.tensor([[1.0, 2.0], [3.0, -1.0]]).double() * size
        found = measured(DenseFeatures(x), "feature", None)
        assert bool(found.scale.isfinite().all()) and bool((found.scale > 0).all())
