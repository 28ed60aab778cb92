"""Training follows the recipes, from explicit generators, and can be continued."""

from itertools import islice

import pytest
import torch
from torch import Tensor, nn

from linprobe.experiments.networks import ConvNet, DeepMLP, Recipe
from linprobe.experiments.training import (
    CONVNET_TRAINING,
    OPTIMIZERS,
    MLPTrainer,
    MLPTraining,
    minibatches,
    network_error_rate,
    train_convnet,
)
from linprobe.runtime.errors import LinprobeError


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Ten kinds of image, one bright bar each, with noise."""
    noise = torch.randint(100, (200, 28, 28), dtype=torch.uint8, generator=seeded(0))
    for index in range(200):
        noise[index, 2 * (index % 10) + 4] += 150
    return noise


@pytest.fixture(scope="module")
def labels() -> Tensor:
    return torch.arange(200) % 10


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


def test_the_error_rate_is_the_share_of_wrong_predictions(images: Tensor, labels: Tensor) -> None:
    network = DeepMLP(2, seeded(0)).train()
    predicted = network(network.preprocess(images)).argmax(1)
    wrong = (predicted + 1) % 10
    mixed = torch.where(torch.arange(200) < 50, wrong, predicted)
    assert network_error_rate(network, images, predicted, batch_size=7) == 0.0
    assert network_error_rate(network, images, mixed, batch_size=7) == 0.25
    assert network.training


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
    convnet, deep = ConvNet("paper", seeded(0)), DeepMLP(2, seeded(0))
    message = "0 images and 200 labels; expected one label for each"
    with pytest.raises(LinprobeError, match=message):
        train_convnet(convnet, images[:0], labels, generator=seeded(0))
    with pytest.raises(LinprobeError, match=message):
        MLPTrainer(deep, images[:0], labels, MLPTraining(), seeded(0))
    with pytest.raises(LinprobeError, match="200 images and 3 labels"):
        network_error_rate(deep, images, labels[:3])
