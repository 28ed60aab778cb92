"""Batches and the error rate of a network."""

from itertools import islice

import pytest
import torch
from torch import Tensor

from linprobe.experiments.networks import DeepMLP
from linprobe.experiments.training import minibatches, network_error_rate
from linprobe.runtime.errors import LinprobeError
from tests.support.nets import seeded


def test_an_epoch_draws_each_sample_once_and_every_batch_is_full() -> None:
    batches = list(islice(minibatches(10, 4, seeded(0)), 5))
    assert [len(b) for b in batches] == [4] * 5
    order = torch.cat(batches)
    assert order[:10].sort().values.tolist() == list(range(10))
    assert order[10:].sort().values.tolist() == list(range(10))
    assert order[:10].tolist() != order[10:].tolist()
    assert order[:10].tolist() != list(range(10))


def test_a_batch_may_be_larger_than_an_epoch() -> None:
    (batch,) = islice(minibatches(3, 7, seeded(0)), 1)
    assert batch[:6].sort().values.tolist() == [0, 0, 1, 1, 2, 2]
    assert len(batch) == 7


def test_the_error_rate_is_the_share_of_wrong_predictions(images: Tensor, labels: Tensor) -> None:
    network = DeepMLP(2, seeded(0)).train()
    predicted = network(network.preprocess(images)).argmax(1)
    wrong = (predicted + 1) % 10
    mixed = torch.where(torch.arange(200) < 50, wrong, predicted)
    assert network_error_rate(network, images, predicted, batch_size=7) == 0.0
    assert network_error_rate(network, images, mixed, batch_size=7) == 0.25
    assert network.training


def test_labels_that_are_not_those_of_the_images_are_refused(
    images: Tensor, labels: Tensor
) -> None:
    with pytest.raises(LinprobeError, match="200 images and 3 labels"):
        network_error_rate(DeepMLP(2, seeded(0)), images, labels[:3])
