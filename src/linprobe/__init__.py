"""Linear classifier probes whose every point is a certified optimum."""

from importlib import import_module
from typing import TYPE_CHECKING

from linprobe.runtime.errors import LinprobeError

if TYPE_CHECKING:
    from linprobe.activations.features import extract_features
    from linprobe.activations.layers import LayerRow, LayerTable, layers
    from linprobe.activations.taps import Taps
    from linprobe.core.certificate import Certificate, certify
    from linprobe.core.features import Standardisation
    from linprobe.core.problem import SoftmaxRegression
    from linprobe.pipeline.fit import fit_probes
    from linprobe.pipeline.probe import probe
    from linprobe.pipeline.report import Probe, ProbeReport, load_report
    from linprobe.probes.base import FittedProbe
    from linprobe.probes.config import ProbeConfig
    from linprobe.probes.holdout import holdout_order, holdout_order_by_group
    from linprobe.probes.softmax import fit_probe

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
    "Certificate": "core.certificate",
    "FittedProbe": "probes.base",
    "LayerRow": "activations.layers",
    "LayerTable": "activations.layers",
    "Probe": "pipeline.report",
    "ProbeConfig": "probes.config",
    "ProbeReport": "pipeline.report",
    "SoftmaxRegression": "core.problem",
    "Standardisation": "core.features",
    "Taps": "activations.taps",
    "certify": "core.certificate",
    "extract_features": "activations.features",
    "fit_probe": "probes.softmax",
    "fit_probes": "pipeline.fit",
    "holdout_order": "probes.holdout",
    "holdout_order_by_group": "probes.holdout",
    "layers": "activations.layers",
    "load_report": "pipeline.report",
    "probe": "pipeline.probe",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that the command line starts without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'linprobe' has no attribute {name!r}")
    return getattr(import_module(f"linprobe.{_HOMES[name]}"), name)
