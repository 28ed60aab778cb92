"""Settings that all experiments share. No torch here: the command line reads them for its help."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from linprobe.evaluation.options import EvaluationOptions
from linprobe.probes.config import ProbeConfig
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.numbers import check_seed, positive_number

if TYPE_CHECKING:
    from linprobe.probes.minibatch import SGDProtocol

QUICK_PROBE_EPOCHS = 5
DEVICES = ("cpu", "cuda")

FREE = ("out", "overwrite", "data_dir", "feature_bytes", "strict")
"""Names of the settings that change no number of a run."""


@dataclass(frozen=True)
class Settings:
    """Settings that do not depend on the experiment.

    Attributes:
        out: folder of the run.
        dataset: images to train and probe on, see `linprobe.data.load`.
        data_dir: folder of its files; None: found or downloaded.
        seed: of the network, its training, the held-out rows and the solver's samples.
        device: where to compute, "cpu" or "cuda".
        quick: few samples and training steps: a smoke test, not a result.
        overwrite: replace a run that `out` holds.
        feature_bytes: features held in memory at a time; a layer that is larger is held alone.
        method: the probes' numbers; their seed is set from `seed`.
        evaluation: controls and description length to compute beside each probe.
        float64: run the network in float64 and subtract the mean before anything is rounded. None:
            for the layers where the rounding of float32 is 1 % or more of what varies, or counts in
            what the probe uses; True: for all layers; False: for none.
        sgd: train the probes by SGD instead of solving for certified optima; of `method` only
            `tol` and `validation_fraction` are then used.
        strict: end the run when a layer fails, instead of going on with the others.
    """

    out: Path
    dataset: str = "mnist"
    data_dir: str | None = None
    seed: int = 0
    device: str = "cpu"
    quick: bool = False
    overwrite: bool = False
    feature_bytes: float = 1.5e9
    method: ProbeConfig = field(default_factory=ProbeConfig)
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    float64: bool | None = None
    sgd: "SGDProtocol | None" = None
    strict: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", check_seed(self.seed))
        held = positive_number("feature_bytes", self.feature_bytes)
        object.__setattr__(self, "feature_bytes", held)
        if self.device not in DEVICES:
            known = " or ".join(DEVICES)
            raise LinprobeError(f"device is {self.device!r}; expected {known}")
        if self.device == "cuda":
            _check_cuda()
        if self.evaluation.types is not None:
            raise LinprobeError(
                "evaluation.types is for samples of your own; an experiment's types are clusters "
                "of its images: leave it out"
            )
        beside = self.evaluation.controls or self.evaluation.mdl
        if self.sgd is not None and (beside or self.float64):
            raise LinprobeError(
                "protocol sgd has no controls, no mdl and no float64, which are for certified "
                "probes; leave them out, or take protocol certified"
            )

    @property
    def protocol(self) -> str:
        """The protocol's name in a run's record."""
        return "certified" if self.sgd is None else "sgd"

    @property
    def probe_training(self) -> "SGDProtocol | None":
        """`sgd`, in a quick run with few epochs."""
        if self.sgd is None or not self.quick:
            return self.sgd
        return replace(self.sgd, max_epochs=min(self.sgd.max_epochs, QUICK_PROBE_EPOCHS))


def _check_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        raise LinprobeError(
            "device is 'cuda', but this PyTorch sees no CUDA device; use device 'cpu', or "
            "install a CUDA build of PyTorch and check nvidia-smi"
        )
