"""A data set of the right shape that takes no time: blurred class patterns with noise."""

import torch

from linprobe.data import ImageDataset


def tiny_dataset(num_train=120, num_test=50):
    generator = torch.Generator().manual_seed(5)
    patterns = torch.rand(10, 28, 28, generator=generator)

    def split(count):
        labels = torch.arange(count) % 10
        noise = torch.rand(count, 28, 28, generator=generator)
        images = 255 * (0.3 * patterns[labels] + 0.7 * noise)
        return images.to(torch.uint8), labels

    return ImageDataset("tiny", *split(num_train), *split(num_test), {"file": "00ff"}, "made up")
