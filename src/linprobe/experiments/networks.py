"""The two networks of the paper's figures (Alain & Bengio 2016, Figures 5 and 8)."""

from contextlib import AbstractContextManager
from typing import ClassVar

import torch
from torch import Tensor, nn

from linprobe.experiments.figure5 import RECIPES, Recipe
from linprobe.experiments.figure8 import Skip
from linprobe.runtime.errors import LinprobeError

NEGATIVE_SLOPE = 0.1


class ConvNet(nn.Module):
    """The TensorFlow MNIST tutorial's network: two convolutions and a dense layer.

    conv 5x5x32 same, ReLU, max-pool 2, conv 5x5x64 same, ReLU, max-pool 2, flatten, dense 512,
    ReLU, dropout 0.5, dense 10, on 28 x 28 grey images.

    Args:
        recipe: initialisation and pixel range. ``"paper"``: weights from a normal of deviation
            .1 cut at two deviations, first bias 0 and the others .1, pixels (x - 127.5) / 255,
            as in the tutorial that the paper probes. ``"course"``: Glorot uniform, zero biases,
            pixels in [0, 1], the defaults of Keras.
        generator: of the initial weights.

    Raises:
        LinprobeError: The recipe is not one of these two.
    """

    probe_points: ClassVar[dict[str, str]] = {
        "input": ":in",
        "conv1_preact": "conv1",
        "conv1_postact": "relu1",
        "conv1_postpool": "pool1",
        "conv2_preact": "conv2",
        "conv2_postact": "relu2",
        "conv2_postpool": "pool2",
        "fc1_preact": "fc1",
        "fc1_postact": "relu3",
        "logits": "logits",
    }
    """Names of the paper's probe points, in depth order, to taps of `linprobe.activations.taps`."""

    def __init__(self, recipe: Recipe, generator: torch.Generator) -> None:
        super().__init__()
        if recipe not in RECIPES:
            known = ", ".join(map(repr, RECIPES))
            raise LinprobeError(f"unknown recipe {recipe!r}; expected one of: {known}")
        self.recipe: Recipe = recipe
        with _no_random_numbers():
            self.conv1 = nn.Conv2d(1, 32, 5, padding=2)
            self.relu1 = nn.ReLU()
            self.pool1 = nn.MaxPool2d(2)
            self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
            self.relu2 = nn.ReLU()
            self.pool2 = nn.MaxPool2d(2)
            self.flatten = nn.Flatten()
            self.fc1 = nn.Linear(64 * 7 * 7, 512)
            self.relu3 = nn.ReLU()
            self.dropout = nn.Dropout(0.5)
            self.logits = nn.Linear(512, 10)
        layers: tuple[nn.Conv2d | nn.Linear, ...] = (
            self.conv1,
            self.conv2,
            self.fc1,
            self.logits,
        )
        for index, layer in enumerate(layers):
            if recipe == "paper":
                _truncated_normal(layer, 0.0 if index == 0 else 0.1, generator)
            else:
                _glorot(layer, generator)

    def preprocess(self, images: Tensor) -> Tensor:
        """Turn uint8 images (n, 28, 28) into the network's float32 input (n, 1, 28, 28)."""
        pixels = images[:, None].float()
        return (pixels - 127.5) / 255 if self.recipe == "paper" else pixels / 255

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, 10) of preprocessed images (n, 1, 28, 28)."""
        # Max-pooling and ReLU commute, gradients included. In training the ReLU comes second and
        # has a quarter of the work; probes see evaluation mode, where points are as named.
        if self.training:
            x = self.relu1(self.pool1(self.conv1(x)))
            x = self.relu2(self.pool2(self.conv2(x)))
        else:
            x = self.pool1(self.relu1(self.conv1(x)))
            x = self.pool2(self.relu2(self.conv2(x)))
        x = self.relu3(self.fc1(self.flatten(x)))
        logits: Tensor = self.logits(self.dropout(x))
        return logits


class DeepMLP(nn.Module):
    """A pathologically deep network with one skip connection from the input (Figure 8).

    `depth` dense layers of `width` units with leaky ReLU, Glorot-uniform weights, zero biases,
    and a dense layer of 10 on top. A skip connection leads to the layer in the middle,
    ``layer{depth / 2 + 1}``, counted from 1. In the paper's figure, whose bars count from 0, that
    is bar 64 of 128, the first low one of the upper half.

    Args:
        depth: number of hidden layers, even.
        generator: of the initial weights.
        width: units of each.
        negative_slope: of the leaky ReLU. The paper does not give it; with .01 the optimum at
            bars 3 to 15 of its untrained network would be worse than what it published.
        num_inputs: pixels.
        skip: what enters the middle layer too: "input" or "layer1" (the first hidden layer's
            output), concatenated, or "layer1_added", summed.

    Raises:
        LinprobeError: `depth` is odd or less than 2.
    """

    def __init__(
        self,
        depth: int,
        generator: torch.Generator,
        *,
        width: int = 128,
        negative_slope: float = NEGATIVE_SLOPE,
        num_inputs: int = 784,
        skip: Skip = "input",
    ) -> None:
        super().__init__()
        if depth < 2 or depth % 2:
            raise LinprobeError(f"depth is {depth}; expected an even number of layers, 2 or more")
        self.depth, self.skip = depth, skip
        self.receiver = depth // 2 + 1
        joined = {"input": num_inputs, "layer1": width, "layer1_added": 0}[skip]
        with _no_random_numbers():
            fan_in = num_inputs
            for index in range(1, depth + 1):
                layer = nn.Linear(fan_in + (joined if index == self.receiver else 0), width)
                _glorot(layer, generator)
                self.add_module(f"layer{index}", nn.Sequential(layer, nn.LeakyReLU(negative_slope)))
                fan_in = width
            self.logits = nn.Linear(width, 10)
            _glorot(self.logits, generator)

    @property
    def probe_points(self) -> dict[str, str]:
        """Names of the probe points, in depth order, to taps of `linprobe.activations.taps`."""
        hidden = [f"layer{index}" for index in range(1, self.depth + 1)]
        return {"input": ":in", **{name: name for name in hidden}, "logits": "logits"}

    def preprocess(self, images: Tensor) -> Tensor:
        """Turn uint8 images (n, 28, 28) into the network's float32 input (n, 784) in [0, 1]."""
        return images.flatten(1).float() / 255

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, 10) of preprocessed images (n, 784)."""
        h = start = x
        for index in range(1, self.depth + 1):
            if index == self.receiver:
                added = self.skip == "layer1_added"
                h = h + start if added else torch.cat([h, start], dim=1)
            h = self.get_submodule(f"layer{index}")(h)
            if index == 1 and self.skip != "input":
                start = h
        logits: Tensor = self.logits(h)
        return logits


def _no_random_numbers() -> AbstractContextManager[None]:
    """Layers draw weights of their own when they are made, before ours are drawn."""
    return torch.random.fork_rng(devices=[])


def _glorot(layer: nn.Conv2d | nn.Linear, generator: torch.Generator) -> None:
    """Uniform within sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010, eq. 16); zero bias."""
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


def _truncated_normal(
    layer: nn.Conv2d | nn.Linear, bias: float, generator: torch.Generator
) -> None:
    """TensorFlow's truncated_normal: draws beyond two deviations are drawn again."""
    nn.init.trunc_normal_(layer.weight, std=0.1, a=-0.2, b=0.2, generator=generator)
    assert layer.bias is not None
    nn.init.constant_(layer.bias, bias)
