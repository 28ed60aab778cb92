"""Which tokens are samples, and which choices of tokens are known."""

import pytest
import torch

from linprobe.data.tokens import check_tokens, kept_tokens
from linprobe.runtime.errors import LinprobeError

MASK = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1]])  # padded on both sides


@pytest.mark.parametrize("tokens", ["last", "first", "mean", "all", 0, -1, None])
def test_known_tokens_pass(tokens):
    check_tokens(tokens)


@pytest.mark.parametrize("tokens", ["cls", 1.5, True])
def test_other_tokens_are_refused(tokens):
    with pytest.raises(LinprobeError, match="expected 'last', 'first', 'mean', 'all', the index"):
        check_tokens(tokens)


def test_kept_tokens_are_labelled_and_attended():
    labels = torch.tensor([[5, -100, 1, 2], [0, 0, -100, 0]])
    assert kept_tokens(labels, MASK).tolist() == [
        [False, False, True, False],
        [True, True, False, True],
    ]
    assert int(kept_tokens(labels, None).sum()) == 6
    with pytest.raises(LinprobeError, match=r"labels of shape \(2,\); expected a label for each"):
        kept_tokens(labels[:, 0], None)
    # A mask of samples of speech, say: the labels tell.
    assert int(kept_tokens(labels, MASK.repeat(1, 9)).sum()) == 6
    with pytest.raises(LinprobeError, match=r"mask \(2, 3\)"):
        kept_tokens(labels, MASK[:, :3])
