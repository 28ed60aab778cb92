"""Features on their way to a problem: copied, overwritten or streamed."""

import pytest
import torch

from linprobe.core.features import (
    DenseFeatures,
    StreamedFeatures,
    TensorRows,
    born_dtype,
    standardised,
)


def test_only_what_is_owned_is_overwritten():
    x = torch.randn(9, 3)
    kept = x.clone()
    standardised(DenseFeatures(x))
    standardised(StreamedFeatures(TensorRows(x), 1e3))
    assert torch.equal(x, kept)
    standardised(DenseFeatures(x, owned=True))
    assert not torch.equal(x, kept)


@pytest.mark.parametrize("born", [torch.float16, torch.bfloat16, torch.float32])
def test_the_dtype_that_numbers_were_rounded_to(born):
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).to(born)
    for wide in (x, x.float(), x.double()):
        for features in (DenseFeatures(wide), StreamedFeatures(TensorRows(wide), 1e3)):
            assert born_dtype(features) == born
