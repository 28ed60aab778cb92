"""Training of the deep network is the textbooks', and can be continued."""

import pytest
import torch
from torch import Tensor

from linprobe.experiments.mlp_training import OPTIMIZERS, MLPTrainer, MLPTraining
from linprobe.experiments.networks import DeepMLP
from linprobe.experiments.training import network_error_rate
from linprobe.runtime.errors import LinprobeError
from tests.support.nets import seeded, weights


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_optimizer_trains_a_shallow_network(
    optimizer: str, images: Tensor, labels: Tensor
) -> None:
    network = DeepMLP(2, seeded(0))
    rate = 0.05 if optimizer == "sgd" else 1e-3
    before = network_error_rate(network, images, labels)
    MLPTrainer(
        network, images, labels, MLPTraining(optimizer, rate, batch_size=50), seeded(0)
    ).advance(60)
    assert before > 0.5
    assert network_error_rate(network, images, labels) < 0.1
    assert not network.training


@pytest.mark.parametrize(
    ("training", "step"),
    [
        (MLPTraining("sgd", 0.1, momentum=0.5), lambda g1, g2: (g1 + (0.5 * g1 + g2)) * 0.1),
        (MLPTraining("sgd", 0.1, 0.0, 8, decay=0.5), lambda g1, g2: (g1 + 0.5 * g2) * 0.1),
        (MLPTraining("adam", 1e-3), lambda g1, g2: 1e-3 * (g1.sign() + adam_second(g1, g2))),
        (MLPTraining("rmsprop", 1e-3), lambda g1, g2: 1e-3 * rmsprop_two(g1, g2)),
    ],
    ids=lambda value: value.optimizer if isinstance(value, MLPTraining) else "",
)
def test_optimizers_are_the_textbooks(training: MLPTraining, step: object) -> None:
    """Two updates of the last bias, whose gradient is far from 0."""
    images = torch.randint(256, (8, 28, 28), dtype=torch.uint8, generator=seeded(0))
    labels = torch.zeros(8, dtype=torch.int64)
    network = DeepMLP(2, seeded(0))
    trainer = MLPTrainer(network, images, labels, training, seeded(0))
    gradients = []
    start = network.logits.bias.detach().clone()
    network.logits.bias.register_hook(lambda gradient: gradients.append(gradient.clone()))
    trainer.advance(2)
    expected = start - step(*gradients)  # type: ignore[operator]
    torch.testing.assert_close(network.logits.bias.detach(), expected, rtol=1e-3, atol=1e-6)


def adam_second(g1: Tensor, g2: Tensor) -> Tensor:
    """Second update of Adam (Kingma & Ba 2015, algorithm 1), in units of the learning rate."""
    mean = (0.9 * 0.1 * g1 + 0.1 * g2) / (1 - 0.9**2)
    square = (0.999 * 0.001 * g1**2 + 0.001 * g2**2) / (1 - 0.999**2)
    return mean / square.sqrt()


def rmsprop_two(g1: Tensor, g2: Tensor) -> Tensor:
    """Two updates of RMSprop with a factor of .99, in units of the learning rate."""
    first = 0.01 * g1**2
    return g1 / first.sqrt() + g2 / (0.99 * first + 0.01 * g2**2).sqrt()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_in_two_parts_is_training_in_one(
    optimizer: str, images: Tensor, labels: Tensor
) -> None:
    training = MLPTraining(optimizer, 1e-3, batch_size=48)
    parts, whole = (DeepMLP(4, seeded(0)) for _ in range(2))
    trainer = MLPTrainer(parts, images, labels, training, seeded(1))
    trainer.advance(3)
    torch.manual_seed(99)  # what happens between the parts must not matter
    network_error_rate(parts, images, labels)
    trainer.advance(5)
    MLPTrainer(whole, images, labels, training, seeded(1)).advance(8)
    assert trainer.num_minibatches == 8
    assert torch.equal(weights(parts), weights(whole))
    restarted = DeepMLP(4, seeded(0))
    for num in (3, 5):
        MLPTrainer(restarted, images, labels, training, seeded(1)).advance(num)
    assert not torch.equal(weights(restarted), weights(whole))


def test_progress_is_told_of_the_last_minibatch(images: Tensor, labels: Tensor) -> None:
    seen: list[tuple[int, int, float]] = []
    trainer = MLPTrainer(DeepMLP(2, seeded(0)), images, labels, MLPTraining(), seeded(0))
    trainer.advance(3, lambda *report: seen.append(report))
    ((done, total, loss),) = seen
    assert (done, total) == (3, 3)
    assert 0 < loss < 10


def test_settings_that_cannot_be_used_are_refused(images: Tensor, labels: Tensor) -> None:
    for settings, message in [
        ({"optimizer": "lion"}, "unknown optimizer 'lion'; expected one of: sgd, rmsprop, adam"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; expected a positive number"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"learning_rate": float("inf")}, "learning_rate is inf; expected a positive number"),
        ({"momentum": 1.0}, "momentum is 1.0; expected 0 or more and below 1"),
        ({"batch_size": 0}, "batch_size is 0; expected a whole number from 1 on"),
        ({"decay": 1.5}, "decay is 1.5; expected more than 0 and at most 1"),
    ]:
        with pytest.raises(LinprobeError, match=message):
            MLPTraining(**settings)
    message = "0 images and 200 labels; expected one label for each"
    with pytest.raises(LinprobeError, match=message):
        MLPTrainer(DeepMLP(2, seeded(0)), images[:0], labels, MLPTraining(), seeded(0))
