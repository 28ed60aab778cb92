"""Linear classifier probes whose every point is a certified optimum."""

import importlib
import random
import sys

import lazy_loader

from linprobe.runtime.moved import MovedModules, warn_of_move

__version__ = "0.1.0"

_MOVED = {
    "controls": "evaluation.controls",
    "keras": "integrations.keras",
    "results": "records.store",
    "sklearn": "integrations.sklearn",
}
sys.meta_path.append(MovedModules(__name__, _MOVED))

# The public names stand in __init__.pyi. They are imported when they are first used, so that the
# command line starts without torch.
_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__.remove("KerasNetwork")  # a star import works without Keras


def __getattr__(name: str) -> object:
    """Import a public name, or a module by the name that it had."""
    if name not in _MOVED:
        drawn = random.getstate()  # libraries draw from it while they are imported
        try:
            return _public(name)
        finally:
            random.setstate(drawn)
    warn_of_move(f"{__name__}.{name}", f"{__name__}.{_MOVED[name]}")
    return importlib.import_module(f"{__name__}.{_MOVED[name]}")
