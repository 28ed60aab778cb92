"""Probe the stages of a ResNet of Hugging Face's transformers; linprobe needs no adapter for it.

The network has random weights, the images are those of Fashion-MNIST.

    python examples/huggingface_resnet.py [--quick]
"""

import sys

import torch
from transformers import ResNetConfig, ResNetForImageClassification

import linprobe


def main(num_train: int = 10_000, num_test: int = 10_000) -> None:
    """Print the probes of the four stages."""
    sizes = {"num_channels": 1, "embedding_size": 16, "hidden_sizes": [16, 32, 64, 128]}
    torch.manual_seed(0)
    network = ResNetForImageClassification(ResNetConfig(layer_type="basic", **sizes))
    data = linprobe.load_dataset("fashion-mnist")
    train = data.train_images[:num_train, None] / 255, data.train_labels[:num_train]
    test = data.test_images[:num_test, None] / 255, data.test_labels[:num_test]
    print(linprobe.probe(network, train, test, layers="**stages.*"))


if __name__ == "__main__":
    if "--quick" in sys.argv[1:]:
        main(num_train=300, num_test=150)
    else:
        main()
