"""Probes trained by minibatches, for `benchmarks.figure8_training`.

Published probes may not have been optima. Here probes of many layers and settings are trained side
by side: on a network at rest, or along with it, on what it computes for its own minibatches.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from linprobe.activations.extract import extract_features
from linprobe.data import ImageDataset
from linprobe.experiments.networks import DeepMLP
from linprobe.experiments.training import minibatches
from linprobe.runtime.randomness import generator

SETTINGS = (("adam", 1e-3), ("adam", 1e-2), ("sgd", 1.0))
"""Optimiser and learning rate; "sgd" is without momentum."""

NEAREST = 1
"""The setting nearest to the published untrained panel: the only one on trained networks."""

AT_REST = (500, 2000)
"""Minibatches that probes are trained for while the network is not."""

NUM_PROBED = 10_000
"""Of the training images, whose error rate is measured."""

_NUM_TRAINED = 30_000
_OPTIMIZERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}


class ProbeBank:
    """One probe a layer and setting, from Glorot-uniform weights, on raw features.

    Args:
        num_layers: L.
        width: features of each layer, D.
        settings: optimiser and learning rate of each.
    """

    def __init__(
        self, num_layers: int, width: int, settings: Sequence[tuple[str, float]] = SETTINGS
    ) -> None:
        draws = generator(0, "minibatch probes")
        limit = (6 / (width + 10)) ** 0.5
        start = torch.empty(num_layers, width, 10).uniform_(-limit, limit, generator=draws)
        self.settings = tuple(settings)
        self.weights = [start.clone() for _ in self.settings]
        self.biases = [torch.zeros(num_layers, 1, 10) for _ in self.settings]
        self._optimizers: list[Any] = [
            _OPTIMIZERS[name]([weight, bias], lr=rate)
            for (name, rate), weight, bias in zip(
                self.settings, self.weights, self.biases, strict=True
            )
        ]

    def only(self, setting: int) -> "ProbeBank":
        """Return a copy that holds the probes of one setting, by its place."""
        bank = copy.deepcopy(self)
        for items in (bank.weights, bank.biases, bank._optimizers):
            items[:] = [items[setting]]
        bank.settings = (self.settings[setting],)
        return bank

    def step(self, features: Tensor, labels: Tensor) -> None:
        """Train on one minibatch: features (L, n, D), labels (n,)."""
        for weight, bias, optimizer in zip(
            self.weights, self.biases, self._optimizers, strict=True
        ):
            residuals = torch.baddbmm(bias, features, weight).softmax(2)
            residuals[:, torch.arange(len(labels)), labels] -= 1
            residuals /= len(labels)
            weight.grad = features.transpose(1, 2) @ residuals
            bias.grad = residuals.sum(1, keepdim=True)
            optimizer.step()

    def rates(self, features: Tensor, labels: Tensor) -> list[list[float]]:
        """Error rates by setting and layer, of features (L, n, D) with labels (n,)."""
        found = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            wrong = torch.baddbmm(bias, features, weight).argmax(2) != labels
            found.append(wrong.float().mean(1).tolist())
        return found


class Listener:
    """Trains banks of probes along with a network, on each of its minibatches.

    Args:
        network: whose outputs are listened to until `close`.
        taps: of L layers of equal width.
        banks: trained in place.
    """

    def __init__(self, network: DeepMLP, taps: Sequence[str], banks: Sequence[ProbeBank]) -> None:
        self._outputs: dict[str, Tensor] = {}
        self._taps, self._banks = taps, banks
        self._handles = [
            network.get_submodule(tap).register_forward_hook(self._keeper(tap)) for tap in taps
        ]

    def _keeper(self, tap: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self._outputs[tap] = output.detach()

        return keep

    def seen(self, labels: Tensor) -> None:
        """Train on what the last forward pass left, with its labels (n,)."""
        features = torch.stack([self._outputs[tap] for tap in self._taps])
        for bank in self._banks:
            bank.step(features, labels)

    def close(self) -> None:
        """Listen no longer."""
        for handle in self._handles:
            handle.remove()


def train_at_rest(
    bank: ProbeBank, features: Tensor, labels: Tensor, stops: Sequence[int], batch_size: int
) -> list[ProbeBank]:
    """Train on features (L, n, D) of a network at rest; return the bank as it was at each stop."""
    kept = []
    batches = minibatches(len(labels), batch_size, generator(0, "minibatch probes order"))
    for step in range(1, max(stops) + 1):
        index = next(batches)
        bank.step(features[:, index], labels[index])
        if step in stops:
            kept.append(copy.deepcopy(bank))
    return kept


class MinibatchProbes:
    """Probes of one network trained by minibatches, at all taps but the logits.

    A probe is trained for each number of minibatches in `AT_REST` on the untrained network. From
    there it is trained on while the network is trained ("warm"). At each later step a new probe
    is trained for as many on the network at rest ("cold"). Both have the setting `NEAREST`.
    """

    def __init__(
        self, network: DeepMLP, data: ImageDataset, taps: Sequence[str], batch_size: int
    ) -> None:
        self.network, self.data, self.batch_size = network, data, batch_size
        self.taps = [tap for tap in taps if tap != "logits"]
        self.rates: dict[tuple[str, int, tuple[str, float]], dict[str, list[float]]] = {}
        self.warm: list[ProbeBank] = []
        self.listener: Listener | None = None

    def seen(self, labels: Tensor) -> None:
        """Train the warm probes on the network's last minibatch."""
        assert self.listener is not None
        self.listener.seen(labels)

    def measure(self, step: int) -> None:
        """Train cold probes on the network as it is, and measure them and the warm ones."""
        images, labels = self.data.train_images[:_NUM_TRAINED], self.data.train_labels
        by_tap = extract_features(self.network, self.network.preprocess(images), self.taps)
        features = torch.stack([by_tap.pop(tap) for tap in self.taps])
        labels = labels[:_NUM_TRAINED]
        settings = SETTINGS if step == 0 else SETTINGS[NEAREST : NEAREST + 1]
        new = ProbeBank(len(self.taps), features.shape[2], settings)
        cold = train_at_rest(new, features, labels, AT_REST, self.batch_size)
        if step == 0:
            self.warm = [bank.only(NEAREST) for bank in cold]
            self.listener = Listener(self.network, self.taps, self.warm)
        for name, banks in (("cold", cold), ("warm", self.warm)):
            for rest, bank in zip(AT_REST, banks, strict=True):
                rates = bank.rates(features[:, :NUM_PROBED], labels[:NUM_PROBED])
                for setting, values in zip(bank.settings, rates, strict=True):
                    self.rates.setdefault((name, rest, setting), {})[str(step)] = values

    def close(self) -> list[dict[str, Any]]:
        """Return what was measured."""
        if self.listener:
            self.listener.close()
        return [
            {"start": name, "at_rest": rest, "probe": setting, "steps": steps}
            for (name, rest, setting), steps in self.rates.items()
        ]
