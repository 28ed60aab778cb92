"""Training of the convolutional network follows the recipes, from explicit generators."""

import pytest
import torch
from torch import Tensor, nn

from linprobe.experiments.convnet_training import CONVNET_TRAINING, train_convnet
from linprobe.experiments.networks import ConvNet, Recipe
from linprobe.experiments.training import network_error_rate
from linprobe.runtime.errors import LinprobeError
from tests.support.nets import seeded, weights


def test_the_papers_schedule_is_the_tutorials() -> None:
    how = CONVNET_TRAINING["paper"]
    assert how.num_minibatches(60_000, 10) == 8593  # int(10 * 55000) // 64 in the tutorial
    assert how.num_minibatches(3_000, 1) == 46
    assert how.num_minibatches(10, 1) == 1
    rates = [how.learning_rate * how.decay_at(step, 55_000) for step in (0, 859, 860, 8592)]
    assert rates == pytest.approx([0.01, 0.01, 0.0095, 0.01 * 0.95**9])


def test_the_courses_learning_rate_falls_after_50000_minibatches_only() -> None:
    how = CONVNET_TRAINING["course"]
    assert how.num_minibatches(60_000, 10) == 976
    rates = [how.learning_rate * how.decay_at(step, 50_000) for step in (0, 49_999, 50_000)]
    assert rates == pytest.approx([0.01, 0.01, 0.0095])


@pytest.mark.parametrize(("recipe", "factor"), [("paper", 0.5), ("course", 1.0)])
def test_two_steps_are_momentum_descent_on_the_penalised_loss(
    recipe: Recipe, factor: float, images: Tensor, labels: Tensor
) -> None:
    how = CONVNET_TRAINING[recipe]
    network, expected = (ConvNet(recipe, seeded(0)) for _ in range(2))
    network.dropout.p = expected.dropout.p = 0.0
    num = 2 * how.batch_size
    many = torch.arange(num) % len(images)
    assert train_convnet(network, images[many], labels[many], epochs=1, generator=seeded(1)) == 2

    # Dropout's seed is drawn from the same generator before the first order of samples.
    generator = seeded(1)
    torch.randint(2**62, (), generator=generator)
    index = torch.randperm(num, generator=generator)
    velocity = {name: torch.zeros_like(p) for name, p in expected.named_parameters()}
    for batch in index.split(how.batch_size):
        x, y = images[many][batch], labels[many][batch]
        loss = nn.functional.cross_entropy(expected(expected.preprocess(x)), y)
        dense = [*expected.fc1.parameters(), *expected.logits.parameters()]
        loss = loss + 5e-4 * factor * sum(p.square().sum() for p in dense)
        gradients = torch.autograd.grad(loss, list(expected.parameters()))
        with torch.no_grad():
            for (name, p), gradient in zip(expected.named_parameters(), gradients, strict=True):
                velocity[name] = 0.9 * velocity[name] + gradient
                p -= 0.01 * velocity[name]
    # Channels-last convolutions round otherwise, so that a tie of a pool may go the other way.
    torch.testing.assert_close(weights(network), weights(expected), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("recipe", "penalty"), [("paper", 5e-4), ("course", 1e-3)])
def test_weights_that_the_loss_does_not_feel_shrink_by_the_penalty_alone(
    recipe: Recipe, penalty: float, images: Tensor, labels: Tensor
) -> None:
    network = ConvNet(recipe, seeded(0))
    nn.init.zeros_(network.conv2.weight)
    nn.init.constant_(network.conv2.bias, -1.0)  # every unit is dead: fc1 sees zeros
    nn.init.ones_(network.fc1.weight)
    conv1 = network.conv1.weight.detach().clone()
    num = 2 * CONVNET_TRAINING[recipe].batch_size
    many = torch.arange(num) % len(images)
    train_convnet(network, images[many], labels[many], epochs=1, generator=seeded(1))
    shrunk = float((1 - network.fc1.weight.detach()).double().mean())
    assert shrunk == pytest.approx(0.01 * penalty * (1 + 1.9), rel=0.05)
    assert torch.equal(network.conv1.weight, conv1)


def test_the_first_images_are_held_out(
    images: Tensor, labels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = CONVNET_TRAINING["paper"]
    small = type(how)(16, how.penalty, how.learning_rate, how.decay, None, 40)
    monkeypatch.setitem(CONVNET_TRAINING, "paper", small)
    other, wrong = images.clone(), labels.clone()
    other[:-40], wrong[:-40] = 7, 0  # never looked at
    first, second = (ConvNet("paper", seeded(0)) for _ in range(2))
    assert train_convnet(first, images, labels, epochs=1, generator=seeded(1)) == 2
    train_convnet(second, other, wrong, epochs=1, generator=seeded(1))
    assert torch.equal(weights(first), weights(second))
    wrong[-40:] = 0
    third = ConvNet("paper", seeded(0))
    train_convnet(third, other, wrong, epochs=1, generator=seeded(1))
    assert not torch.equal(weights(first), weights(third))


def test_the_generator_alone_decides_the_convnet(images: Tensor, labels: Tensor) -> None:
    before = torch.get_rng_state()
    trained = []
    for disturbance, seed in ((1, 1), (2, 1), (3, 2)):
        torch.manual_seed(disturbance)
        network = ConvNet("paper", seeded(0))
        state = torch.get_rng_state()
        train_convnet(network, images, labels, epochs=1, generator=seeded(seed))
        assert torch.equal(torch.get_rng_state(), state)
        trained.append(weights(network))
    torch.set_rng_state(before)
    assert torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[0], trained[2])


def test_a_generator_that_goes_on_gives_another_dropout(images: Tensor, labels: Tensor) -> None:
    masks: list[Tensor] = []
    generator = seeded(0)
    for _ in range(2):
        network = ConvNet("paper", seeded(0))
        network.dropout.register_forward_pre_hook(lambda _, args: torch.ones_like(args[0]))
        network.dropout.register_forward_hook(lambda _, args, out: masks.append(out))
        train_convnet(network, images[:64], labels[:64], epochs=1, generator=generator)
    assert len(masks) == 2
    assert not torch.equal(*masks)


def test_the_convnet_learns_and_ends_as_it_should(images: Tensor, labels: Tensor) -> None:
    network = ConvNet("paper", seeded(0))
    seen: list[tuple[int, int]] = []
    before = network_error_rate(network, images, labels)
    total = train_convnet(
        network, images, labels, epochs=8, generator=seeded(0),
        on_batch=lambda done, total, loss: seen.append((done, total)),
    )  # fmt: skip
    assert before > 0.5
    assert network_error_rate(network, images, labels) < 0.1
    assert total == 25
    assert seen == [(20, 25), (25, 25)]
    assert not network.training
    assert all(p.is_contiguous() for p in network.parameters())


def test_images_without_labels_are_refused(images: Tensor, labels: Tensor) -> None:
    convnet = ConvNet("paper", seeded(0))
    with pytest.raises(LinprobeError, match="0 images and 200 labels; expected one label for each"):
        train_convnet(convnet, images[:0], labels, generator=seeded(0))
