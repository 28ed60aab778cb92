"""All experiments by name. No torch here: the command line reads their options."""

from linprobe.experiments.experiment import Experiment
from linprobe.experiments.figure5 import Figure5
from linprobe.experiments.figure8 import Figure8

EXPERIMENTS: dict[str, type[Experiment]] = {kind.name: kind for kind in (Figure5, Figure8)}
