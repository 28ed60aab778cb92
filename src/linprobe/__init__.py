"""Linear classifier probes whose every point is a certified optimum."""

from importlib import import_module
from typing import TYPE_CHECKING

from linprobe.errors import LinprobeError

if TYPE_CHECKING:
    from linprobe.certificate import Certificate, certify
    from linprobe.features import extract_features
    from linprobe.holdout import holdout_order
    from linprobe.problem import SoftmaxRegression, Standardisation
    from linprobe.protocol import FittedProbe, ProbeConfig, fit_probe
    from linprobe.taps import Taps

__version__ = "0.1.0"

__all__ = [
    "Certificate",
    "FittedProbe",
    "LinprobeError",
    "ProbeConfig",
    "SoftmaxRegression",
    "Standardisation",
    "Taps",
    "certify",
    "extract_features",
    "fit_probe",
    "holdout_order",
]

_HOMES = {
    "Certificate": "certificate",
    "FittedProbe": "protocol",
    "ProbeConfig": "protocol",
    "SoftmaxRegression": "problem",
    "Standardisation": "problem",
    "Taps": "taps",
    "certify": "certificate",
    "extract_features": "features",
    "fit_probe": "protocol",
    "holdout_order": "holdout",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that the command line starts without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'linprobe' has no attribute {name!r}")
    return getattr(import_module(f"linprobe.{_HOMES[name]}"), name)
