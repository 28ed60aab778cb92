"""Imports of modules by their former names."""

import warnings
from collections.abc import Mapping
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import Loader
else:  # importing it takes longer than all the rest of linprobe at its start
    Loader = object


class MovedModules(Loader):
    """Finder of a package's modules by their former names, which warns.

    Args:
        package: name of the package.
        moved: present name of each module by its former one, both relative to the package.
    """

    def __init__(self, package: str, moved: Mapping[str, str]) -> None:
        self._names = {f"{package}.{old}": f"{package}.{new}" for old, new in moved.items()}

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        """Find a module that has moved."""
        return ModuleSpec(fullname, self) if fullname in self._names else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Let Python make an empty module."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module with the names of the one that took its place."""
        new = self._names[module.__name__]
        warn_of_move(module.__name__, new)
        names = vars(import_module(new))
        vars(module).update({k: v for k, v in names.items() if not k.startswith("__")})


def warn_of_move(old: str, new: str) -> None:
    """Warn whoever imports the module `old` that it is called `new`."""
    warnings.warn(f"{old} is called {new} now: import that", DeprecationWarning, stacklevel=3)
