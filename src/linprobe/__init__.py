"""Linear classifier probes whose every point is a certified optimum."""

from linprobe.certificate import Certificate, certify
from linprobe.errors import LinprobeError
from linprobe.holdout import holdout_order
from linprobe.probe import FittedProbe, ProbeConfig, fit_probe
from linprobe.problem import SoftmaxRegression, Standardisation

__version__ = "0.1.0"

__all__ = [
    "Certificate",
    "FittedProbe",
    "LinprobeError",
    "ProbeConfig",
    "SoftmaxRegression",
    "Standardisation",
    "certify",
    "fit_probe",
    "holdout_order",
]
