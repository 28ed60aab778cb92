"""The blocked products equal the plain ones at every remainder."""

import pytest
import torch

from linprobe.core.linalg import backproject, class_logits, float64_sum


@pytest.mark.parametrize(
    ("rows", "classes"),
    [(1, 4), (99, 4), (200, 4), (1000, 4), (1001, 4), (1999, 4), (2001, 100), (2001, 101)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products(rows, classes, dtype):
    generator = torch.Generator().manual_seed(rows)
    features = torch.randn(rows, 17, generator=generator, dtype=dtype)
    weight = torch.randn(classes, 17, generator=generator, dtype=dtype)
    logits = class_logits(features, weight)
    assert logits.is_contiguous()
    torch.testing.assert_close(logits, (features @ weight.T).T)
    torch.testing.assert_close(
        backproject(logits, features), logits @ features, rtol=1e-4, atol=1e-3
    )
    part = logits[:, : max(1, rows - 7)]
    torch.testing.assert_close(
        backproject(part, features[: part.shape[1]]),
        part @ features[: part.shape[1]],
        rtol=1e-4,
        atol=1e-3,
    )


@pytest.mark.parametrize("shape", [(3, 1000), (1000,), (2, 31), (2, 0), (2, 5, 64)])
def test_sums_are_those_of_float64(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = float64_sum(x)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, x.double().sum(-1), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(float64_sum(x.double()), x.double().sum(-1))
