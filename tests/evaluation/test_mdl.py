"""The online code against hand-computed codes and cold fits by another solver."""

import math

import pytest
import torch

from linprobe.evaluation.mdl import CUT_POINTS, online_codelength
from linprobe.probes.config import ProbeConfig
from linprobe.runtime.errors import LinprobeError
from tests.support.cases import CASES
from tests.support.reference import reference_optimum

EXACT = ProbeConfig(tol=1e-9)


def test_blocks_end_at_the_published_cut_points():
    labels = torch.arange(10_000) % 2
    code = online_codelength(torch.zeros(10_000, 1), labels, 2, 1e-2)
    ends = [sum(count for count, _ in code.blocks[: i + 1]) for i in range(len(code.blocks))]
    assert ends == [10, 20, 40, 80, 160, 320, 625, 1250, 2500, 5000, 10_000]
    assert [end / 10_000 for end in ends] == list(CUT_POINTS)


def test_features_without_information_by_hand():
    # Without features the probe gives each class its frequency so far, mixed: (c_k + 1) / (t + K).
    labels = torch.tensor([0, 2, 0, 1, 0, 0, 2, 1])
    code = online_codelength(
        torch.zeros(8, 3).double(), labels, 3, 1e-2, EXACT, cut_points=(0.25, 0.5, 1.0)
    )
    first = 2 * math.log2(3)
    second = -math.log2(2 / 5) - math.log2(1 / 5)  # 0 and 1 after one 0 and one 2
    third = -2 * math.log2(3 / 7) - 2 * math.log2(2 / 7)  # 0 0 2 1 after 0 2 0 1
    assert [count for count, _ in code.blocks] == [2, 2, 4]
    assert [bits for _, bits in code.blocks] == pytest.approx([first, second, third], rel=1e-6)
    assert code.bits == pytest.approx(first + second + third, rel=1e-6)
    assert code.uniform_bits == pytest.approx(8 * math.log2(3))
    assert code.compression == pytest.approx(code.uniform_bits / code.bits)


def test_first_block_of_one_class():
    labels = torch.tensor([1, 1, 1, 0])
    code = online_codelength(
        torch.zeros(4, 1).double(), labels, 2, 1e-2, EXACT, cut_points=(0.5, 1.0)
    )
    assert code.blocks[1][1] == pytest.approx(-math.log2(3 / 4) - math.log2(1 / 4))


def test_each_block_agrees_with_a_cold_fit_of_another_solver():
    case = CASES[0]
    n, l2 = len(case.labels), 1e-3
    code = online_codelength(case.features, case.labels, 3, l2, EXACT)
    seen = 0
    for count, bits in code.blocks:
        end = seen + count
        if seen >= 25:
            assert len(case.labels[:seen].unique()) == 3
            _, weight, bias = reference_optimum(
                case.features[:seen], case.labels[:seen], 3, l2 * n / seen
            )
            x = case.features[seen:end]
            p = (x @ torch.from_numpy(weight).T + torch.from_numpy(bias)).softmax(1)
            own = p[torch.arange(count), case.labels[seen:end]]
            expected = -((seen * own + 1) / (seen + 3)).log2().sum()
            assert bits == pytest.approx(float(expected), rel=1e-4)
        seen = end


def test_compression_tells_informative_from_shuffled_labels():
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(4, (2000,), generator=generator)
    features = torch.randn(2000, 12, generator=generator)
    features[torch.arange(2000), labels] += 6.0
    informed = online_codelength(features, labels, 4, 1e-4)
    shuffled = online_codelength(
        features, labels[torch.randperm(2000, generator=generator)], 4, 1e-1
    )
    assert informed.compression > 10
    assert shuffled.compression < 1.02
    blind = online_codelength(torch.zeros(2000, 1), labels, 4, 1e-1)
    assert 0.97 < blind.compression < 1.0


def test_relabelled_classes_and_rotated_features_change_nothing():
    case = CASES[0]
    code = online_codelength(case.features, case.labels, 3, 1e-2, EXACT)
    turn = torch.tensor([2, 0, 1])
    q, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)).double())
    other = online_codelength(case.features @ q, turn[case.labels], 3, 1e-2, EXACT)
    assert other.bits == pytest.approx(code.bits, rel=1e-5)


def test_refuses_what_does_not_fit():
    x, y = torch.zeros(4, 1), torch.tensor([0, 1, 0, 1])
    with pytest.raises(LinprobeError, match=r"cut points are \(0\.5, 0\.2, 1\); expected rising"):
        online_codelength(x, y, 2, 1e-2, cut_points=(0.5, 0.2, 1))
    with pytest.raises(LinprobeError, match="there is 1 class; expected 2 or more"):
        online_codelength(x, torch.zeros_like(y), 1, 1e-2)


def test_weights_are_a_mean_of_one_and_count_like_copies():
    x, y, weight, bits = *_weighted(), {}
    for name, s in (("own", weight), ("three times", 3 * weight)):
        bits[name] = online_codelength(
            x, y, 2, 1e-2, EXACT, cut_points=(0.5, 1.0), sample_weight=s
        ).bits
    s = weight / weight.mean()
    seen = float(s[:20].sum())
    _, w, b = reference_optimum(x[:20], y[:20], 2, 1e-2 * 40 / seen, s[:20])
    logits = x[20:] @ torch.from_numpy(w).T + torch.from_numpy(b)
    own = logits.softmax(1).gather(1, y[20:, None])[:, 0]
    block = float(s[20:] @ -((seen * own + 1) / (seen + 2)).log2())
    assert bits["own"] == pytest.approx(seen + block, rel=1e-5)
    assert bits["three times"] == pytest.approx(bits["own"])
    code = online_codelength(x, y, 2, 1e-2, EXACT, sample_weight=torch.full((40,), 7.0))
    assert code.bits == pytest.approx(online_codelength(x, y, 2, 1e-2, EXACT).bits, rel=1e-6)


def _weighted():
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(40) % 2
    x = torch.randn(40, 3, generator=draw, dtype=torch.float64) + y[:, None]
    return x, y, torch.randint(1, 5, (40,), generator=draw).double()
