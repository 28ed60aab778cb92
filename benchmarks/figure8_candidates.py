"""Ways to build and train the deep network of Figure 8, for `benchmarks.figure8_training`."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from linprobe.data import ImageDataset
from linprobe.experiments.figure8 import Skip
from linprobe.experiments.mlp_training import OptimizerName
from linprobe.experiments.networks import DeepMLP
from linprobe.experiments.training import minibatches
from linprobe.runtime.randomness import generator

DEPTH = 128


@dataclass(frozen=True)
class Candidate:
    """One way to initialise and train the network.

    Attributes:
        optimizer: "sgd", "rmsprop" or "adam".
        learning_rate: at the start, or after `warmup`.
        batch_size: samples a minibatch.
        decay: factor of the learning rate after each epoch.
        gain: factor of the initial weights; the square root of 2 makes Glorot's those of He.
        slope: of the leaky ReLU.
        seed: of the network and of its minibatches.
        skip: see `DeepMLP`; "input_mapped": the input times a learned matrix, summed.
        init: Glorot-uniform, Glorot-normal or orthogonal weights.
        bias: initial.
        momentum: of "sgd".
        clip: largest norm of the gradient of all parameters together; 0: any.
        warmup: minibatches over which the learning rate rises from 0.
    """

    optimizer: OptimizerName
    learning_rate: float
    batch_size: int = 512
    decay: float = 1.0
    gain: float = 1.0
    slope: float = 0.01
    seed: int = 0
    skip: Skip | Literal["input_mapped"] = "input"
    init: Literal["uniform", "normal", "orthogonal"] = "uniform"
    bias: float = 0.0
    momentum: float = 0.9
    clip: float = 0.0
    warmup: int = 0

    @property
    def key(self) -> str:
        """What tells this candidate from all others."""
        return " ".join(f"{name}={value}" for name, value in asdict(self).items())

    @property
    def label(self) -> str:
        """The optimiser, its rate, and what differs from a candidate's defaults."""
        parts = [f"{self.optimizer} {self.learning_rate:g}"]
        for field in fields(self)[2:]:
            value = getattr(self, field.name)
            if value != field.default:
                shown = value if isinstance(value, str) else f"{value:.3g}"
                parts.append(f"{field.name} {shown}")
        return ", ".join(parts)

    def network(self, depth: int) -> DeepMLP:
        """Return the untrained network."""
        draws = generator(self.seed, "network")
        skip: Skip = "input" if self.skip == "input_mapped" else self.skip
        network = DeepMLP(depth, draws, negative_slope=self.slope, skip=skip)
        if self.skip == "input_mapped":
            middle = network.get_submodule(f"layer{network.receiver}")
            assert isinstance(middle, nn.Sequential)
            middle[0] = MappedInput(128, 784, draws)
        linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
        with torch.no_grad():
            for layer in linear:
                if self.init == "normal":
                    nn.init.xavier_normal_(layer.weight, generator=draws)
                elif self.init == "orthogonal":
                    nn.init.orthogonal_(layer.weight, generator=draws)
                layer.weight.mul_(self.gain)
                if layer.bias is not None:
                    layer.bias.fill_(self.bias)
        return network

    def rate_at(self, step: int, num_samples: int) -> float:
        """Return the learning rate of minibatch `step`, counted from 0."""
        rising = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return rising * self.learning_rate * self.decay ** (step * self.batch_size // num_samples)


def coarse() -> list[Candidate]:
    """One dimension after another, around settings that are known to train; the telling first."""
    found = [Candidate("adam", rate) for rate in (1e-4, 2e-4)]
    found += [Candidate("rmsprop", 1e-4), Candidate("sgd", 1e-2)]
    found += [Candidate("adam", 1e-4, slope=0.1), Candidate("adam", 1e-4, gain=2**0.5)]
    found += [Candidate("adam", 1e-4, 128), Candidate("adam", 2e-4, decay=0.95)]
    found += [Candidate("sgd", 1e-2, gain=2**0.5), Candidate("rmsprop", 3e-5)]
    found += [Candidate("adam", rate) for rate in (3e-5, 4e-4, 1e-3)]
    found += [Candidate("adam", 1e-4, slope=slope) for slope in (0.0, 0.3)]
    found += [Candidate("adam", 1e-4, gain=gain) for gain in (0.7, 1.2)]
    found += [Candidate("rmsprop", 3e-4), Candidate("sgd", 1e-1)]
    found += [Candidate("sgd", 1e-3, gain=2**0.5), Candidate("adam", 1e-4, 64)]
    found += [Candidate("adam", 1e-4, gain=gain, slope=0.1) for gain in (1.1, 1.2)]
    return [*found, Candidate("sgd", 1e-2, slope=0.1)]


def further() -> list[Candidate]:
    """What else may make lower bars fall: other skips, initial weights and optimisers."""
    one: dict[str, Any] = {"optimizer": "adam", "learning_rate": 1e-4, "slope": 0.1}
    changes: list[dict[str, Any]] = [
        {"skip": "layer1_added"},
        {"skip": "layer1"},
        {"skip": "input_mapped"},
        {"skip": "layer1_added", "slope": 0.2},
        {"skip": "layer1_added", "slope": 0.3},
        {"init": "orthogonal"},
        {"init": "normal"},
        {"gain": 1.3},
        {"bias": 0.1},
        {"learning_rate": 2e-4, "warmup": 500},
        {"batch_size": 128},
        {"optimizer": "sgd", "learning_rate": 0.1, "clip": 1.0},
        {"optimizer": "sgd", "learning_rate": 0.1, "gain": 1.4, "clip": 1.0},
        {"optimizer": "rmsprop"},
        {"optimizer": "rmsprop", "skip": "layer1_added"},
        {"optimizer": "sgd", "learning_rate": 0.1, "clip": 1.0, "skip": "layer1_added"},
        {"batch_size": 128, "skip": "layer1_added"},
        {"learning_rate": 2e-4, "warmup": 500, "skip": "layer1_added"},
        {"init": "orthogonal", "skip": "layer1_added"},
        {"init": "normal", "skip": "layer1_added"},
        {"gain": 1.2, "skip": "layer1_added"},
        {"bias": 0.1, "skip": "layer1_added"},
    ]
    return [Candidate(**{**one, **change}) for change in changes]


class MappedInput(nn.Module):
    """A dense layer of the sum of hidden units and a linear map of the input."""

    def __init__(self, width: int, num_inputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.width = width
        self.map = nn.Linear(num_inputs, width, bias=False)
        self.dense = nn.Linear(width, width)
        for layer in (self.map, self.dense):
            nn.init.xavier_uniform_(layer.weight, generator=generator)

    def forward(self, joined: Tensor) -> Tensor:
        """Return (n, width) of hidden units and input, concatenated: (n, width + num_inputs)."""
        summed: Tensor = self.dense(joined[:, : self.width] + self.map(joined[:, self.width :]))
        return summed


Seen = Callable[[Tensor], None]


def train(
    network: DeepMLP, candidate: Candidate, data: ImageDataset, seen: Seen | None = None
) -> Iterator[int]:
    """Train in place, one minibatch each time that the next number of them is asked for.

    Args:
        network: freshly initialised.
        candidate: says how.
        data: its training images.
        seen: called with the labels (n,) of each minibatch, after its forward pass.
    """
    optimizer = _optimizer(network, candidate)
    batches = minibatches(
        len(data.train_images), candidate.batch_size, generator(candidate.seed, "training")
    )
    for step, index in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = candidate.rate_at(step, len(data.train_images))
        optimizer.zero_grad()
        labels = data.train_labels[index]
        logits = network(network.preprocess(data.train_images[index]))
        nn.functional.cross_entropy(logits, labels).backward()
        if candidate.clip:
            nn.utils.clip_grad_norm_(network.parameters(), candidate.clip)
        optimizer.step()
        if seen is not None:
            seen(labels)
        yield step + 1


def _optimizer(network: nn.Module, candidate: Candidate) -> torch.optim.Optimizer:
    parameters, rate = list(network.parameters()), candidate.learning_rate
    if candidate.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=candidate.momentum, fused=True)
    if candidate.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=rate, foreach=True)
    return torch.optim.Adam(parameters, lr=rate, fused=True)
