"""Reading of schema 1, whose configuration was a flat dictionary that each command filled anew."""

import contextlib
from typing import Any

SCHEMA = 1

_EXTRACTION = ("network", "reduce", "tokens", "groups", "batch_size", "float64")
_EXPERIMENT = ("recipe", "epochs", "depth", "skip_layer", "negative_slope", "training")
_AUROC = "Probability that a sample of class 1 scores above one of class 0."
_LOADING = (
    *("factory", "kwargs", "checkpoint", "checkpoint_sha256"),
    *("channels", "image_size", "normalize"),
)


def upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """Convert a run's parsed JSON from schema 1 to schema 2.

    Nothing is checked here; what doesn't fit is left for the reader of schema 2 to name.
    """
    config = content.get("config")
    if not isinstance(config, dict):
        return content
    return {**content, "config": _config(config, content), "metrics": _metrics(content)}


def _config(old: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    memory = old.get("memory_bytes", old.get("feature_bytes"))
    method = old.get("probe", old)
    is_known = isinstance(method, dict)
    chart = "bars" if content.get("experiment") == "fig8" else "curve"
    new = {
        "device": old.get("device", _solver_device(content)),
        # Runs of the first days had the protocol's numbers one floor higher.
        "method": {"tol": None, "validation_fraction": None, **method} if is_known else method,
        "minibatch": old.get("sgd"),
        "extraction": {**_known(old, _EXTRACTION), "memory_bytes": memory},
        "experiment": {**_known(old, _EXPERIMENT), "chart": chart},
        "loading": _known(old, _LOADING) if "factory" in old else None,
    }
    return {**new, **_known(old, ("controls", "mdl", "notes"))}


def _known(old: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: old[name] for name in names if name in old}


def _solver_device(content: dict[str, Any]) -> Any:
    """Take the device from the machine's description, such as "cuda (NVIDIA H100)"."""
    environment = content.get("environment")
    device = environment.get("device") if isinstance(environment, dict) else None
    return device.partition(" ")[0] if isinstance(device, str) else device


def _metrics(content: dict[str, Any]) -> Any:
    """Move the area under the ROC curve, of two classes, to where other metrics stand."""
    metrics = content.get("metrics", [])
    with contextlib.suppress(KeyError, TypeError, AttributeError):  # named by the reader
        probes = [probe for item in content["checkpoints"] for probe in item["probes"]]
        for found in (probe.get("evaluation") or {} for probe in probes):
            if found.get("auroc") is not None:
                found.setdefault("metrics", {})["auroc"] = found["auroc"]
                if "auroc" not in [metric["name"] for metric in metrics]:
                    metrics = [{"name": "auroc", "label": "AUROC", "about": _AUROC}, *metrics]
    return metrics
