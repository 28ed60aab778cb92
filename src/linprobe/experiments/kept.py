"""Keep a run's state on disk, so that a later call goes on where it was stopped."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from linprobe.experiments.experiment import Experiment, Trainer
from linprobe.experiments.settings import FREE, Settings
from linprobe.records.schema import DatasetRecord
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.files import one_name
from linprobe.runtime.fingerprint import Fingerprint
from linprobe.runtime.tensors import read_tensors, write_tensors

_NETWORK, _TRAINER = "network.", "trainer."


def run_fingerprint(experiment: Experiment, settings: Settings, dataset: DatasetRecord) -> str:
    """Hash what the numbers of a run depend on."""
    own: Any = experiment  # a dataclass, which a protocol can't say
    hashed = Fingerprint()
    hashed.add(version("linprobe"), experiment.name)
    hashed.add({field.name: getattr(own, field.name) for field in fields(own)})
    hashed.add({f.name: getattr(settings, f.name) for f in fields(settings) if f.name not in FREE})
    hashed.add(dataset.name, dataset.num_train, dataset.num_test, dataset.sha256)
    return hashed.text


def network_fingerprint(fingerprint: str, network: nn.Module) -> str:
    """Hash a run's fingerprint and the network's weights: what a layer's probe depends on."""
    hashed = Fingerprint()
    hashed.add(fingerprint, network)
    return hashed.text


class NetworkStates:
    """The network and the state of its training at each checkpoint.

    Args:
        folder: ``CHECKPOINT/network.safetensors`` stands below it.
        fingerprint: of the run; states of another one, and damaged ones, are not used.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder, self._fingerprint = folder, fingerprint

    def save(self, checkpoint: str, network: nn.Module, trainer: Trainer, seconds: float) -> None:
        """Write a state; where that fails, a later call trains again.

        Args:
            checkpoint: its name.
            network: as it is at the checkpoint.
            trainer: of the network.
            seconds: that the training took from the checkpoint before.
        """
        tensors = {_NETWORK + name: value for name, value in network.state_dict().items()}
        tensors |= {_TRAINER + name: value for name, value in trainer.state().items()}
        said = {"seconds": repr(seconds), "run": self._fingerprint, "checkpoint": checkpoint}
        with suppress(LinprobeError):
            write_tensors(self._path(checkpoint), tensors, said)

    def restore(self, checkpoint: str, network: nn.Module, trainer: Trainer) -> float | None:
        """Bring network and trainer to a state; return the seconds that the training took.

        None: there is no such state, and nothing was changed.
        """
        try:
            tensors, said = read_tensors(self._path(checkpoint), "it is made again")
        except LinprobeError:
            return None
        if (said.get("run"), said.get("checkpoint")) != (self._fingerprint, checkpoint):
            return None
        network.load_state_dict(_part(tensors, _NETWORK))
        network.eval()
        trainer.restore(_part(tensors, _TRAINER))
        return float(said["seconds"])

    def _path(self, checkpoint: str) -> Path:
        return self._folder / one_name(checkpoint) / "network.safetensors"


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
