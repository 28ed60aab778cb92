"""A layer's rule: said in the record, read back, and applied to new activations."""

import pytest
import torch

from linprobe import LinprobeError
from linprobe.activations.pooling import FLATTEN, Reducer
from linprobe.activations.rules import Reduction


@pytest.mark.parametrize(
    ("rule", "shape", "stated"),
    [
        (Reduction(), (7,), None),
        (Reduction(), (3, 2, 2), "flatten"),
        (Reduction(reducer=Reducer("pool", 2)), (3, 4, 4), "pool:2"),
        (Reduction("mean"), (5, 7), "tokens=mean"),
        (Reduction(-2), (5, 7), "tokens=-2"),
        (Reduction("all", Reducer("random", 3)), (5, 7), "tokens=all, random:3"),
    ],
)
def test_rules_are_stated_and_read(rule, shape, stated):
    assert rule.stated(shape) == stated
    assert Reduction.parse(stated) == rule


@pytest.mark.parametrize("text", ["median", "tokens=cls", "tokens=mean; pool:2"])
def test_other_texts_are_refused(text):
    with pytest.raises(LinprobeError, match="expected"):
        Reduction.parse(text)


def test_all_tokens_that_the_mask_and_labels_keep_are_rows():
    x = torch.arange(12.0).view(2, 3, 2)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    labels = torch.tensor([[0, -100, 2], [1, 1, -100]])
    rule = Reduction("all", FLATTEN)
    assert torch.equal(rule.apply(x), x.flatten(0, 1))
    assert torch.equal(rule.apply(x, mask=mask), x.flatten(0, 1)[[0, 1, 3, 4, 5]])
    assert torch.equal(rule.apply(x, mask=mask, labels=labels), x.flatten(0, 1)[[0, 3, 4]])


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(LinprobeError, match=r"shape \(2, 3\) has no tokens"):
        Reduction("mean").apply(torch.zeros(2, 3))
    with pytest.raises(LinprobeError, match=r"has 3 tokens, the attention mask \(2, 4\)"):
        Reduction("mean").apply(torch.zeros(2, 3, 5), mask=torch.ones(2, 4))
    with pytest.raises(LinprobeError, match=r"has 3 tokens, the labels \(2, 4\)"):
        Reduction("all").apply(torch.zeros(2, 3, 5), labels=torch.ones(2, 4))
    with pytest.raises(LinprobeError, match="complex"):
        Reduction().apply(torch.zeros(2, 3, dtype=torch.complex64))
