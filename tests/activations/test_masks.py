"""Masks: whose tokens they count, and what becomes of those of another length."""

import pytest
import torch
from torch import nn

from linprobe import LinprobeError
from linprobe.activations.masks import fitted_mask, mask_of
from linprobe.data.batches import Batch
from linprobe.data.tokens import kept_by

KEPT = torch.tensor([[True, True, False], [True, False, False]])


@pytest.mark.parametrize(
    "mask",
    [
        KEPT,
        KEPT.long(),
        KEPT.float(),
        KEPT.to(torch.bfloat16) * 0.5,
        torch.where(KEPT, 0.0, -1e9),
        torch.where(KEPT, 0.0, -torch.inf),
        torch.where(KEPT, 0.0, torch.finfo(torch.float16).min).half(),
        torch.where(KEPT, 0, -10_000),
    ],
)
def test_masks_of_any_kind_keep_the_same_tokens(mask):
    assert torch.equal(kept_by(mask), KEPT)
    data = {"input_ids": torch.zeros(2, 3), "attention_mask": mask[:, None, None], "labels": [0, 1]}
    assert torch.equal(Batch.read(data, "train").mask, KEPT)


def test_an_additive_mask_without_padding_keeps_all():
    assert kept_by(torch.zeros(2, 3)).all() and not kept_by(torch.zeros(2, 3).long()).any()


@pytest.mark.parametrize("wrong", [[1.0, -1e9], [0.0, torch.nan]])
def test_masks_that_are_neither_are_refused(wrong):
    with pytest.raises(LinprobeError, match=r"attention mask holds .*; expected nonzero where a"):
        kept_by(torch.tensor([wrong]))


def test_a_mask_in_proportion_keeps_the_middle_of_each_token():
    mask = torch.arange(12) < torch.tensor([[12], [7], [1], [0]])
    fitted = fitted_mask(nn.Identity(), mask, 4)
    assert fitted.tolist() == [
        [True] * 4,
        [True, True, False, False],
        [True] + [False] * 3,
        [False] * 4,
    ]
    assert torch.equal(fitted_mask(nn.Identity(), mask.flip(1), 4), fitted.flip(1))
    assert fitted_mask(nn.Identity(), mask, 12) is mask


def test_the_networks_own_rule_comes_first():
    class Speech(nn.Module):
        def _get_feat_extract_output_lengths(self, lengths):
            return (lengths - 4) // 2

    mask = torch.arange(12) < torch.tensor([[12], [7], [1]])
    network = nn.Sequential(Speech())
    assert fitted_mask(network, mask, 4).sum(1).tolist() == [4, 1, 1]
    assert fitted_mask(network, mask, 6).sum(1).tolist() == [6, 3, 1]  # of another layer
    assert fitted_mask(network, mask.flip(1), 4)[1].tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("input_ids", "attention_mask"),
        ("decoder_input_ids", None),
        ("query_ids", "query_attention_mask"),
        ("pixel_values", None),
        ("input_features", "attention_mask"),
        ("inputs_embeds", "attention_mask"),
        ("attention_mask", "attention_mask"),
        (None, "attention_mask"),
    ],
)
def test_a_mask_belongs_to_an_input(origin, expected):
    mask = torch.ones(2, 5)
    named = {
        "input_ids": torch.zeros(2, 5).long(),
        "decoder_input_ids": torch.zeros(2, 5).long(),
        "query_ids": torch.zeros(2, 5).long(),
        "pixel_values": torch.zeros(2, 3, 5, 5),
        "input_features": torch.zeros(2, 8, 5),
        "inputs_embeds": torch.zeros(2, 5, 4),
        "attention_mask": mask,
        "query_attention_mask": mask,
    }
    batch = Batch.read({**named, "labels": [0, 1]}, "train")
    assert mask_of(batch, origin) == expected
