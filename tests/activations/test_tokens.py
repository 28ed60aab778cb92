"""Rows of sequences, where the attention mask says which tokens count."""

import pytest
import torch

from linprobe import LinprobeError
from linprobe.activations.tokens import pick_tokens

X = torch.arange(8.0).view(2, 4, 1)
MASK = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1]])  # padded on both sides


@pytest.mark.parametrize(
    ("tokens", "masked", "all_of_them"),
    [
        ("first", [1.0, 4.0], [0.0, 4.0]),
        ("last", [2.0, 7.0], [3.0, 7.0]),
        ("mean", [1.5, 5.5], [1.5, 5.5]),
        (1, [2.0, 5.0], [1.0, 5.0]),
        (-2, [1.0, 6.0], [2.0, 6.0]),
    ],
)
def test_one_row_a_sequence(tokens, masked, all_of_them):
    assert pick_tokens(X, MASK, tokens).flatten().tolist() == masked
    assert pick_tokens(X, None, tokens).flatten().tolist() == all_of_them
    assert pick_tokens(X.half(), MASK.bool(), tokens).flatten().tolist() == masked


def test_what_the_mask_hides_may_be_anything():
    x = X.masked_fill(MASK[:, :, None] == 0, torch.nan)
    assert pick_tokens(x, MASK, "mean").flatten().tolist() == [1.5, 5.5]


def test_a_sequence_too_short_is_named():
    with pytest.raises(LinprobeError, match=r"has 2 tokens that the attention mask keeps.*least 3"):
        pick_tokens(X, MASK, 2)
    with pytest.raises(LinprobeError, match="has 0 tokens"):
        pick_tokens(X, torch.zeros(2, 4, dtype=torch.int64), "mean")
