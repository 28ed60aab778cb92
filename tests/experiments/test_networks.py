"""The figures' networks are those of the paper, to the last initial weight."""

import math

import pytest
import torch
from torch import Tensor, nn

from linprobe.activations.taps import Taps
from linprobe.experiments.figure8 import SKIPS, Skip
from linprobe.experiments.networks import RECIPES, ConvNet, DeepMLP
from linprobe.runtime.errors import LinprobeError

CONVNET_SHAPES = {
    "input": (1, 28, 28),
    "conv1_preact": (32, 28, 28),
    "conv1_postact": (32, 28, 28),
    "conv1_postpool": (32, 14, 14),
    "conv2_preact": (64, 14, 14),
    "conv2_postact": (64, 14, 14),
    "conv2_postpool": (64, 7, 7),
    "fc1_preact": (512,),
    "fc1_postact": (512,),
    "logits": (10,),
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(n: int) -> Tensor:
    return torch.randint(256, (n, 28, 28), dtype=torch.uint8, generator=seeded(5))


@pytest.fixture(params=RECIPES)
def convnet(request: pytest.FixtureRequest) -> ConvNet:
    return ConvNet(request.param, seeded(0))


def test_the_convnets_probe_points_have_the_papers_names_order_and_shapes(
    convnet: ConvNet,
) -> None:
    assert list(convnet.probe_points) == list(CONVNET_SHAPES)
    taps = list(convnet.probe_points.values())
    captured = Taps(convnet, taps)(convnet.preprocess(random_images(3)))
    for name, tap in convnet.probe_points.items():
        assert captured[tap].shape[1:] == CONVNET_SHAPES[name], name


def test_the_convnet_computes_what_the_paper_says(convnet: ConvNet) -> None:
    x = convnet.preprocess(random_images(2))
    captured = Taps(convnet, list(convnet.probe_points.values()))(x)
    points = {name: captured[tap] for name, tap in convnet.probe_points.items()}
    f = nn.functional
    for name, value in {
        "conv1_preact": f.conv2d(x, convnet.conv1.weight, convnet.conv1.bias, padding="same"),
        "conv1_postact": points["conv1_preact"].clamp(min=0),
        "conv1_postpool": points["conv1_postact"].unflatten(2, (14, 2)).unflatten(4, (14, 2))
        .amax((3, 5)),
        "conv2_postact": points["conv2_preact"].clamp(min=0),
        "conv2_postpool": f.max_pool2d(points["conv2_postact"], 2, 2),
        "fc1_preact": points["conv2_postpool"].flatten(1) @ convnet.fc1.weight.T
        + convnet.fc1.bias,
        "fc1_postact": points["fc1_preact"].clamp(min=0),
        "logits": points["fc1_postact"] @ convnet.logits.weight.T + convnet.logits.bias,
    }.items():  # fmt: skip
        torch.testing.assert_close(points[name], value, msg=lambda m, name=name: f"{name}: {m}")


def test_training_mode_computes_the_same_with_the_same_gradients(convnet: ConvNet) -> None:
    convnet.dropout.p = 0.0
    # Equal pixels everywhere: windows of ties, positive and negative.
    images = torch.cat([random_images(4), torch.full((1, 28, 28), 200, dtype=torch.uint8)])
    results = []
    for training in (True, False):
        convnet.train(training)
        logits = convnet(convnet.preprocess(images))
        gradients = torch.autograd.grad(logits.square().sum(), list(convnet.parameters()))
        results.append([logits, *gradients])
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second)


def test_the_convnet_drops_half_of_fc1_in_training_only(convnet: ConvNet) -> None:
    x = convnet.preprocess(random_images(2))
    dropped: list[Tensor] = []
    convnet.dropout.register_forward_hook(lambda m, args, out: dropped.append(out - args[0]))
    convnet.eval()(x)
    assert torch.equal(dropped[0], torch.zeros_like(dropped[0]))
    assert convnet.dropout.p == 0.5


def test_pixels_are_scaled_as_the_recipe_says() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).repeat(28 * 28).view(3, 28, 28)
    paper = ConvNet("paper", seeded(0)).preprocess(images)
    course = ConvNet("course", seeded(0)).preprocess(images)
    deep = DeepMLP(2, seeded(0)).preprocess(images)
    assert paper.shape == course.shape == (3, 1, 28, 28)
    assert deep.shape == (3, 784)
    torch.testing.assert_close(paper.flatten()[:3], torch.tensor([-0.5, -0.3, 0.5]))
    for x in (course, deep):
        torch.testing.assert_close(x.flatten()[:3], torch.tensor([0.0, 0.2, 1.0]))
    assert {x.dtype for x in (paper, course, deep)} == {torch.float32}


def test_the_papers_weights_are_normal_cut_at_two_deviations() -> None:
    network = ConvNet("paper", seeded(0))
    weight = network.fc1.weight.detach()
    assert float(weight.abs().max()) <= 0.2
    # A normal cut at two deviations keeps .8796 of its deviation; a clipped one would keep .959.
    assert float(weight.std()) == pytest.approx(0.08796, rel=0.005)
    assert float((weight.abs() > 0.199).float().mean()) < 0.003
    biases = [layer.bias for layer in (network.conv1, network.conv2, network.fc1, network.logits)]
    assert [set(b.tolist()) for b in biases[:1]] == [{0.0}]
    for bias in biases[1:]:
        torch.testing.assert_close(bias, torch.full_like(bias, 0.1))


@pytest.mark.parametrize(
    ("layer", "fan_in", "fan_out"),
    [("conv1", 25, 800), ("conv2", 800, 1600), ("fc1", 3136, 512), ("logits", 512, 10)],
)
def test_the_courses_weights_are_glorot_uniform(layer: str, fan_in: int, fan_out: int) -> None:
    module = ConvNet("course", seeded(0)).get_submodule(layer)
    check_glorot(module, fan_in, fan_out)


def check_glorot(module: nn.Module, fan_in: int, fan_out: int) -> None:
    bound = math.sqrt(6 / (fan_in + fan_out))
    weight = module.weight.detach()
    assert float(weight.abs().max()) <= bound
    assert float(weight.abs().max()) > 0.98 * bound
    assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.06)
    assert not module.bias.any()


@pytest.mark.parametrize("skip", SKIPS)
@pytest.mark.parametrize("depth", [2, 10, 30])
def test_the_deep_network_computes_what_the_paper_says(depth: int, skip: Skip) -> None:
    network = DeepMLP(depth, seeded(0), skip=skip)
    names = ["input", *(f"layer{i}" for i in range(1, depth + 1)), "logits"]
    assert list(network.probe_points) == names
    x = network.preprocess(random_images(2))
    captured = Taps(network, list(network.probe_points.values()))(x)
    h = x
    linears = [m for m in network.modules() if isinstance(m, nn.Linear)]
    for index in range(depth):
        # The skip enters layer L/2 counted from 0, which is bar L/2 of the published figure.
        inputs = h
        if index == depth // 2:
            start = x if skip == "input" else captured["layer1"]
            inputs = h + start if skip == "layer1_added" else torch.cat([h, start], 1)
        h = inputs @ linears[index].weight.T
        h = torch.where(h > 0, h, 0.1 * h)
        torch.testing.assert_close(captured[f"layer{index + 1}"], h)
    torch.testing.assert_close(captured["logits"], h @ linears[-1].weight.T)


def test_the_deep_network_has_the_papers_size() -> None:
    network = DeepMLP(128, seeded(0))
    assert network.receiver == 65  # bar 64 of bars counted from 0
    linears = [m for m in network.modules() if isinstance(m, nn.Linear)]
    widths = [(m.in_features, m.out_features) for m in linears]
    assert widths[0] == (784, 128)
    assert widths[64] == (128 + 784, 128)
    assert widths[-1] == (128, 10)
    assert set(widths[1:64] + widths[65:-1]) == {(128, 128)}
    assert len(network.probe_points) == 130
    for linear in linears:
        check_glorot(linear, linear.in_features, linear.out_features)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_generator_alone_decides_the_weights(recipe: str) -> None:
    nets = [[ConvNet(recipe, seeded(s)), DeepMLP(4, seeded(s))] for s in (0, 0, 1)]
    first, same, other = (
        torch.cat([p.detach().flatten() for net in pair for p in net.parameters()]) for pair in nets
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_building_leaves_global_random_numbers_untouched() -> None:
    """nn.Conv2d and nn.Linear draw weights of their own before ours are drawn."""
    before = torch.get_rng_state()
    ConvNet("paper", seeded(0))
    DeepMLP(4, seeded(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_settings_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(LinprobeError, match="unknown recipe 'keras'; expected one of: 'paper'"):
        ConvNet("keras", seeded(0))
    for depth in (0, 3, -2):
        with pytest.raises(LinprobeError, match=f"depth is {depth}; expected an even number"):
            DeepMLP(depth, seeded(0))
