"""Linear classifier probes whose every point is a certified optimum."""

from importlib import import_module
from typing import TYPE_CHECKING

from linprobe.errors import LinprobeError

if TYPE_CHECKING:
    from linprobe.arrays import fit_probes
    from linprobe.certificate import Certificate, certify
    from linprobe.features import extract_features
    from linprobe.holdout import holdout_order, holdout_order_by_group
    from linprobe.layer_table import LayerRow, LayerTable, layers
    from linprobe.probe_report import Probe, ProbeReport, load_report
    from linprobe.probing import probe
    from linprobe.problem import SoftmaxRegression, Standardisation
    from linprobe.protocol import FittedProbe, ProbeConfig, fit_probe
    from linprobe.taps import Taps

__version__ = "0.1.0"

__all__ = [
    "Certificate",
    "FittedProbe",
    "LayerRow",
    "LayerTable",
    "LinprobeError",
    "Probe",
    "ProbeConfig",
    "ProbeReport",
    "SoftmaxRegression",
    "Standardisation",
    "Taps",
    "certify",
    "extract_features",
    "fit_probe",
    "fit_probes",
    "holdout_order",
    "holdout_order_by_group",
    "layers",
    "load_report",
    "probe",
]

_HOMES = {
    "Certificate": "certificate",
    "FittedProbe": "protocol",
    "LayerRow": "layer_table",
    "LayerTable": "layer_table",
    "Probe": "probe_report",
    "ProbeConfig": "protocol",
    "ProbeReport": "probe_report",
    "SoftmaxRegression": "problem",
    "Standardisation": "problem",
    "Taps": "taps",
    "certify": "certificate",
    "extract_features": "features",
    "fit_probe": "protocol",
    "fit_probes": "arrays",
    "holdout_order": "holdout",
    "holdout_order_by_group": "holdout",
    "layers": "layer_table",
    "load_report": "probe_report",
    "probe": "probing",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that the command line starts without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'linprobe' has no attribute {name!r}")
    return getattr(import_module(f"linprobe.{_HOMES[name]}"), name)
