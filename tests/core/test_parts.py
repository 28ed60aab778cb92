"""Samples a part at a time: the same numbers as all at once."""

import pytest
import torch

from linprobe.core import parts
from linprobe.core.losses import Contrast, Softmax, SquaredError
from linprobe.core.parts import split
from linprobe.core.problem import LinearProblem

N = 2100


def losses():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (N,), generator=generator)
    targets = torch.randn(3, N, generator=generator, dtype=torch.float64)
    return Softmax(labels, 3), Contrast(labels % 2), SquaredError(targets)


@pytest.mark.parametrize("number", range(3))
def test_parts_make_up_the_whole(number, monkeypatch):
    loss = losses()[number]
    generator = torch.Generator().manual_seed(1)
    z, other = torch.randn(2, loss.num_outputs, N, generator=generator, dtype=torch.float64)
    features = torch.randn(N, 4, generator=generator, dtype=torch.float64)
    weight = torch.rand(N, generator=generator, dtype=torch.float64)
    found = []
    for numbers in (2**17, 900):
        monkeypatch.setattr(parts, "_NUMBERS", numbers)
        problem = LinearProblem(features, loss, weight)
        value, p = problem.evaluate(problem.margins(z.clone()))
        bias = torch.arange(float(loss.num_outputs), dtype=torch.float64)
        results = value, p, problem.residuals(p), problem.curved(p, other), problem.mean(p)
        found.append((*results, problem.shifted(z, bias), problem.bias_system(p).hessian))
        assert len(problem.parts) == (1 if numbers > 900 else -(-N // max(512, 900 // len(p))))
    torch.testing.assert_close(*found)


def test_every_sample_is_in_one_part():
    labels = torch.arange(N) % 1000
    parted = split(Softmax(labels, 1000), torch.ones(N))
    assert torch.equal(torch.cat([part.loss.labels for part in parted]), labels)
    assert sum(len(part.sample_weight) for part in parted) == N and len(parted) == 5
    (none,) = split(Softmax(labels[:0], 10), torch.ones(0))
    assert none.loss.num_samples == len(none.sample_weight) == 0
