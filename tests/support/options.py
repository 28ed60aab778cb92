"""Flat options, put into their groups."""

from dataclasses import fields

from linprobe.activations.options import ExtractionOptions
from linprobe.evaluation.options import EvaluationOptions
from linprobe.probes.config import ProbeConfig

_GROUPS = {"method": ProbeConfig, "extraction": ExtractionOptions, "evaluation": EvaluationOptions}


def grouped(**flat):
    """Keywords of `probe` or `fit_probes` from options by their fields' names (l2: l2_path)."""
    flat = {"l2_path" if name == "l2" else name: value for name, value in flat.items()}
    options = {}
    for group, kind in _GROUPS.items():
        own = {field.name for field in fields(kind)} - {"seed"}
        if chosen := {name: flat.pop(name) for name in list(flat) if name in own}:
            options[group] = kind(**chosen)
    return {**flat, **options}


def fit_options(**flat):
    """As `grouped`, for `fit_probes`, which has a device and a memory of its own."""
    own = {name: flat.pop(name) for name in ("device", "memory_bytes") if name in flat}
    return {**grouped(**flat), **own}
