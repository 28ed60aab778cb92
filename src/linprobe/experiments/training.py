"""Batches, steps and errors that the training of every figure's network shares."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from linprobe.activations.inference import inference_state
from linprobe.runtime.errors import LinprobeError

_REPORT_EVERY = 20


def minibatches(num_samples: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless index batches (size,) int64; each epoch is a new random order of all samples.

    An epoch's last batch is filled up from the next epoch, so every batch is full.

    Args:
        num_samples: in an epoch, at least 1.
        size: of a batch.
        generator: of the orders, on the CPU.
    """
    left = torch.empty(0, dtype=torch.int64)
    while True:
        while len(left) < size:
            left = torch.cat([left, torch.randperm(num_samples, generator=generator)])
        yield left[:size]
        left = left[size:]


def network_error_rate(
    network: Any, images: Tensor, labels: Tensor, *, batch_size: int = 500
) -> float:
    """Measure the fraction of wrong predictions on uint8 images (n, 28, 28) with labels (n,) int64.

    Raises:
        LinprobeError: No images, or not one label for each.
    """
    check_images(images, labels)
    device = next(network.parameters()).device
    wrong = 0
    with inference_state(network):
        for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            prediction = network(network.preprocess(x.to(device))).argmax(1).cpu()
            wrong += int((prediction != y.cpu()).sum())
    return wrong / len(labels)


def train_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, labels: Tensor
) -> Tensor:
    """Take one step on a minibatch with labels (n,) int64; return its mean loss in nats."""
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(network(inputs), labels)
    loss.backward()
    optimizer.step()
    return loss.detach()


def is_report(done: int, total: int) -> bool:
    """Tell whether progress is reported after so many minibatches."""
    return done % _REPORT_EVERY == 0 or done == total


def check_images(images: Tensor, labels: Tensor) -> None:
    """Refuse no images, or not one label for each: `LinprobeError`."""
    if len(images) == 0 or len(images) != len(labels):
        raise LinprobeError(
            f"there are {len(images)} images and {len(labels)} labels; expected one label for "
            "each of at least one image"
        )
