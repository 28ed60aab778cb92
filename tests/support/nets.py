"""Small networks of kinds that people bring, and data that they can be probed on."""

import torch
from torch import nn


class Block(nn.Module):
    """A residual block as torchvision writes it: one ReLU module, called twice, in place."""

    def __init__(self, inner, outer, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.downsample = nn.Sequential(nn.Conv2d(inner, outer, 1, stride), nn.BatchNorm2d(outer))

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self, channels=1, classes=3):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 4, 3, 1, 1)
        self.layer1 = nn.Sequential(Block(4, 4, 1))
        self.layer2 = nn.Sequential(Block(4, 6, 2))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(6, classes)

    def forward(self, x):
        x = self.layer2(self.layer1(self.conv1(x)))
        return self.fc(self.drop(torch.flatten(self.avgpool(x), 1)))


class Tagger(nn.Module):
    """A recurrent net over words; states of each word."""

    def __init__(self, batch_first=True):
        super().__init__()
        self.embed = nn.Embedding(20, 6)
        self.rnn = nn.LSTM(6, 5, batch_first=batch_first)
        self.head = nn.Linear(5, 3)
        self.batch_first = batch_first

    def forward(self, words):
        x = self.embed(words)
        out, _ = self.rnn(x if self.batch_first else x.transpose(0, 1))
        return self.head(out)


class Encoder(nn.Module):
    """A transformer encoder that takes what a tokenizer gives."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.3)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.pooler = nn.Linear(8, 4)

    def forward(self, input_ids, attention_mask):
        x = self.encoder(self.embed(input_ids), src_key_padding_mask=attention_mask == 0)
        return {"hidden": x, "pooled": self.pooler(x[:, 0])}


def images(count, seed=0, size=8, classes=3):
    """Noisy class patterns (count, 1, size, size), and labels."""
    generator = torch.Generator().manual_seed(3)
    patterns = torch.randn(classes, 1, size, size, generator=generator)
    generator.manual_seed(seed)
    labels = torch.arange(count) % classes
    noise = torch.randn(count, 1, size, size, generator=generator)
    return patterns[labels] + 1.5 * noise, labels


def sentences(count, seed=0, length=7, classes=3):
    """Words (count, length), a mask that keeps the first few, and labels of the words."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(0, 20, (count, length), generator=generator)
    lengths = torch.randint(2, length + 1, (count,), generator=generator)
    mask = (torch.arange(length) < lengths[:, None]).long()
    return words, mask, words % classes


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])
