"""Exact directions of one logit, from its whole Hessian."""

import pytest
import torch

from linprobe.core.features import DenseFeatures, StreamedFeatures, TensorRows
from linprobe.core.losses import Contrast
from linprobe.core.problem import LinearProblem, SoftmaxRegression
from linprobe.core.solvers.base import NewtonOptions
from linprobe.core.solvers.direct import DirectModel

N, D, L2 = 120, 300, 1e-5


def drawn(dtype=torch.float64):
    source = torch.Generator().manual_seed(3)
    x = torch.randn(N, D, generator=source, dtype=torch.float64).to(dtype) + 1
    return x, (x[:, 0] > 1).long(), torch.rand(N, generator=source) + 0.1


def model_of(features, labels, weight=None):
    problem = LinearProblem(features, Contrast(labels), weight)
    model = DirectModel(problem, NewtonOptions(), torch.Generator())
    return problem, model


def predicted(problem, w, b):
    margins = problem.shifted(problem.logits(w), b)
    return problem.evaluate(margins)[1]


@pytest.mark.parametrize("kind", ["dense", "streamed"])
def test_directions_are_those_of_newton_with_the_best_bias(kind):
    x, y, s = drawn()
    rows = DenseFeatures(x) if kind == "dense" else StreamedFeatures(TensorRows(x), 1e6)
    problem, model = model_of(rows, y, s)
    w = torch.randn(1, D, dtype=torch.float64) * 0.1
    p = predicted(problem, w, torch.tensor([0.3]).double())
    gradient = torch.randn(1, D, dtype=torch.float64)
    model.begin(p, L2)
    found = model.direction(p, gradient)
    # The Hessian over weight and bias, and a gradient whose bias is zero.
    c = p[0].abs() * (1 - p[0].abs()) * (s / s.sum()).double()
    wide = torch.cat([x, torch.ones(N, 1).double()], 1)
    hessian = wide.T @ (c[:, None] * wide)
    hessian.diagonal()[:-1].add_(L2)
    right = torch.cat([-gradient[0], torch.zeros(1).double()])
    expected = torch.linalg.solve(hessian, right)[:-1]
    torch.testing.assert_close(found.weight[0], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.logits, found.weight @ x.T, rtol=1e-6, atol=1e-6)
    reads = problem.num_reads
    later = model.direction(p, gradient, with_logits=False)
    assert torch.equal(later.weight, found.weight) and later.logits.shape == (1, 0)
    assert problem.num_reads == reads


def test_samples_that_are_all_sure_leave_the_penalty():
    x, y, _ = drawn(torch.float32)
    _, model = model_of(x, y)
    p = torch.zeros(1, N)
    model.begin(p, L2)
    gradient = torch.randn(1, D, dtype=torch.float64)
    found = model.direction(p, gradient).weight
    torch.testing.assert_close(found, -gradient / L2)


def test_it_is_for_one_logit_of_a_small_problem():
    x, y, _ = drawn()
    assert DirectModel.suits(LinearProblem(x, Contrast(y)))
    assert not DirectModel.suits(SoftmaxRegression(x, y, 2))
    assert not DirectModel.suits(LinearProblem(DenseFeatures(x, room=1e5), Contrast(y)))
    wide = torch.zeros(4, 3000)
    assert not DirectModel.suits(LinearProblem(wide, Contrast(torch.tensor([0, 1, 0, 1]))))
