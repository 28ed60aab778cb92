"""The sketched preconditioner and the directions of wide layers."""

import pytest
import torch

from linprobe.core.losses import Softmax
from linprobe.core.problem import SoftmaxRegression
from linprobe.core.solvers.base import NewtonOptions, Point
from linprobe.core.solvers.sampled_hessian import curvature_root
from linprobe.core.solvers.sketched import NystromPreconditioner, SketchedModel
from linprobe.core.solvers.subspace import minimise_in_span

SAME = torch.ones(1, 1, dtype=torch.float64)


def root(p, s):
    return curvature_root(Softmax(torch.zeros(len(s), dtype=torch.int64), len(p)), p, s)


def test_preconditioner_inverts_a_gram_matrix_of_small_rank():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(40, 60, generator=generator, dtype=torch.float64)
    p = torch.full((2, 40), 0.5, dtype=torch.float64)
    s = torch.full((40,), 1 / 40, dtype=torch.float64)
    l2 = 1e-4
    gram = (rows.T @ rows) * (0.25 / 40)
    apply = NystromPreconditioner(rows, root(p, s), 0).at(l2, SAME)
    inside = torch.randn(2, 40, generator=generator, dtype=torch.float64) @ rows
    exact = inside @ torch.linalg.inv(gram + l2 * torch.eye(60, dtype=torch.float64))
    torch.testing.assert_close(apply(inside), exact, rtol=1e-4, atol=1e-6)


def test_classes_have_the_scale_of_their_own_curvature():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(40, 60, generator=generator, dtype=torch.float64)
    p = torch.full((2, 40), 0.5, dtype=torch.float64)
    s = torch.full((40,), 1 / 40, dtype=torch.float64)
    made, scales = NystromPreconditioner(rows, root(p, s), 0), torch.tensor([[3.0], [0.1]]).double()
    inside = torch.randn(2, 40, generator=generator, dtype=torch.float64) @ rows
    found = made.at(1e-4, scales)(inside)
    for k, scale in enumerate(scales):
        alone = made.at(1e-4, scale[:, None])(inside[k : k + 1])
        torch.testing.assert_close(found[k : k + 1], alone)
        same = made.at(1e-4 / float(scale), SAME)(inside[k : k + 1]) / scale
        torch.testing.assert_close(alone, same)


def test_preconditioner_is_symmetric_and_positive():
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(500, 200, generator=generator, dtype=torch.float64)
    p = torch.rand(3, 500, generator=generator, dtype=torch.float64).softmax(0)
    s = torch.full((500,), 1 / 500, dtype=torch.float64)
    table = NystromPreconditioner(rows, root(p, s), 1).at(1e-6, SAME)(
        torch.eye(200, dtype=torch.float64)
    )
    torch.testing.assert_close(table, table.T)
    assert float(torch.linalg.eigvalsh(table)[0]) > 0


def test_preconditioner_where_no_sample_is_unsure_is_the_penaltys():
    rows = torch.ones(30, 20, dtype=torch.float64)
    gradient = torch.ones(1, 20, dtype=torch.float64)
    apply = NystromPreconditioner(rows, torch.zeros(30, dtype=torch.float64), 0).at(1e-3, SAME)
    torch.testing.assert_close(apply(gradient), 1000 * gradient)


@pytest.mark.parametrize("l2", [1e-2, 1e-7])  # bfloat16 where the processor has it, then float32
def test_direction_goes_down_about_as_far_as_newtons(l2):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(1000, 300, generator=generator) / 300**0.5
    labels = torch.randint(4, (1000,), generator=generator)
    problem = SoftmaxRegression(features - features.mean(0), labels, 4)
    zero = torch.zeros(4, 300, dtype=torch.float64)
    start = Point(zero, zero[:, 0], problem.logits(zero))
    p = minimise_in_span(problem, l2, start, accuracy=1e-9).predictions
    model = SketchedModel(
        problem, NewtonOptions(sample_rows=1000), torch.Generator().manual_seed(0)
    )
    model.begin(p, l2)
    gradient = problem.backproject(problem.residuals(p))
    found = model.direction(p, gradient)
    direction = found.weight
    torch.testing.assert_close(found.logits, problem.logits(direction))
    slope = -float((gradient * direction).sum())
    logits = problem.logits(direction).double()
    logits -= (p * logits).sum(0)
    curvature = float((problem.sample_weight * p * logits.square()).sum())
    curvature += l2 * float(direction.square().sum())
    assert slope / curvature == pytest.approx(1, abs=0.1)


def test_more_rows_are_asked_for_sooner_where_directions_are_cheap():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(4000, 300, generator=generator) * torch.logspace(0, -3, 300)
    labels = torch.randint(4, (4000,), generator=generator)
    problem = SoftmaxRegression(features - features.mean(0), labels, 4)
    p = torch.full((4, 4000), 0.25)
    gradient = problem.backproject(problem.residuals(p))
    weak = {}
    for rows in (100, 4000):
        model = SketchedModel(
            problem, NewtonOptions(sample_rows=rows), torch.Generator().manual_seed(0)
        )
        model.begin(p, 1e-8)
        assert not model.is_weak(0.1)  # good progress, whatever a direction costs
        model.direction(p, gradient)
        weak[rows] = [model.is_weak(ratio) for ratio in (0.2, 0.9)]
    assert weak == {100: [True, True], 4000: [False, True]}
