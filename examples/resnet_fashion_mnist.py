"""Probe a ResNet at every block, before and after an epoch of training on Fashion-MNIST.

The network is written in the style of torchvision. A residual block calls its in-place module
`relu` twice; the output of the second call, `layer1.0.relu#2`, is the output of the block.

    python examples/resnet_fashion_mnist.py [--quick]
"""

import sys

import torch
from torch import Tensor, nn

import linprobe


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += shortcut
        return self.relu(out)


class ResNet(nn.Module):
    """A stem, three stages of two blocks, and a classifier."""

    def __init__(self, width: int = 16, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = _stage(width, width, 1)
        self.layer2 = _stage(width, 2 * width, 2)
        self.layer3 = _stage(2 * width, 4 * width, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, 28, 28) to logits (n, num_classes)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1))


def train_one_epoch(network: nn.Module, x: Tensor, y: Tensor) -> None:
    """Adam on minibatches of 64."""
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for rows in torch.randperm(len(x)).split(64):
        loss = nn.functional.cross_entropy(network(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main(num_train: int = 10_000, num_test: int = 5_000, width: int = 16) -> None:
    """Print the probes of the untrained and of the trained network."""
    torch.manual_seed(0)
    data = linprobe.load_dataset("fashion-mnist")
    x, xt = (images[:, None] / 255 for images in (data.train_images, data.test_images))
    train = x[:num_train], data.train_labels[:num_train]
    test = xt[:num_test], data.test_labels[:num_test]
    network = ResNet(width)
    layers = ["conv1:in", "maxpool", "layer?.*", "avgpool"]
    print(linprobe.layers(network, train[0][:2]))
    for state in ("untrained", "trained"):
        if state == "trained":
            train_one_epoch(network, *train)
        # At most 7 x 7 cells per channel: the output of the stem would have 14 x 14.
        pooled = linprobe.ExtractionOptions(reduce="pool:7")
        report = linprobe.probe(network, train, test, layers=layers, extraction=pooled)
        print(f"\n{state}\n{report}")


if __name__ == "__main__":
    if "--quick" in sys.argv[1:]:
        main(num_train=300, num_test=150, width=4)
    else:
        main()
