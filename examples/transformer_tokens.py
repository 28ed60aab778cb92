"""Probe each token of a transformer: what does a layer know of the token, and of the one before?

The model is a BERT of `transformers`, built from a configuration with random weights. Its
embeddings contain one token each, so a probe there cannot predict the token before. Whatever a
later layer knows of that token was brought by attention.

    python examples/transformer_tokens.py [--quick]
"""

import sys

import torch
from torch import Tensor
from transformers import BertConfig, BertModel

import linprobe

IGNORED = -100  # label of a token to leave out
NUM_TOKENS, NUM_KINDS = 40, 4


def sentences(count: int, length: int, seed: int) -> dict[str, Tensor]:
    """Random tokens of random length: input_ids and attention_mask, (count, length)."""
    draws = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, NUM_TOKENS, (count, length), generator=draws)
    lengths = torch.randint(length // 2, length + 1, (count, 1), generator=draws)
    mask = (torch.arange(length) < lengths).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def with_labels(batch: dict[str, Tensor], back: int) -> dict[str, Tensor]:
    """Label each token by the kind of the token `back` positions before it."""
    kinds = batch["input_ids"] % NUM_KINDS
    labels = torch.full_like(kinds, IGNORED)
    labels[:, back:] = kinds[:, : kinds.shape[1] - back]
    return {**batch, "labels": labels.masked_fill(batch["attention_mask"] == 0, IGNORED)}


def main(num_train: int = 1_000, num_test: int = 500, hidden: int = 64) -> None:
    """Print the probes of both questions."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=NUM_TOKENS,
        hidden_size=hidden,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=2 * hidden,
        max_position_embeddings=32,
        initializer_range=0.3,
    )
    network = BertModel(config, add_pooling_layer=False)
    train, test = sentences(num_train, 16, seed=1), sentences(num_test, 16, seed=2)
    for back, question in ((0, "kind of the token itself"), (1, "kind of the token before")):
        report = linprobe.probe(
            network,
            with_labels(train, back),
            with_labels(test, back),
            layers=["embeddings", "encoder.layer.*"],
            extraction=linprobe.ExtractionOptions(tokens="all"),
        )
        print(f"\n{question}\n{report}")


if __name__ == "__main__":
    if "--quick" in sys.argv[1:]:
        main(num_train=150, num_test=80, hidden=32)
    else:
        main()
