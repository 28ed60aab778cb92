"""Python objects by name: ``package.module:name`` or ``path/to/file.py:name``."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from types import ModuleType

from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.text import cause


def load_object(spec: str, role: str) -> object:
    """Import a module and take an attribute of it.

    Modules are also looked for in the current folder, files may import their neighbours.

    Args:
        spec: ``package.module:name`` or ``path/to/file.py:name``; the name may hold dots.
        role: what it is, for messages, such as "factory".

    Raises:
        LinprobeError: Another form, a module that can't be imported, or no such attribute.
    """
    where, colon, name = spec.rpartition(":")
    if not colon or not where or not name:
        raise LinprobeError(
            f"{role} is {spec!r}; expected package.module:name or path/to/file.py:name"
        )
    path = Path(where)
    is_file = path.suffix == ".py"
    try:
        with _importable(path.resolve().parent if is_file else Path.cwd()):
            module = _module_of_file(path) if is_file else importlib.import_module(where)
    except Exception as error:
        raise LinprobeError(
            f"{role}: can't import {where!r} ({cause(error)}); expected a module that is installed "
            "or in this folder, or a path that ends in .py"
        ) from error
    try:
        found: object = attrgetter(name)(module)
    except AttributeError as error:
        raise LinprobeError(
            f"{role} {spec!r}: {where} has no {name!r}; expected the name of an object in it"
        ) from error
    return found


def _module_of_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name while they are made.
    before = sys.modules.get(path.stem)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if before is None:
            del sys.modules[path.stem]
        else:
            sys.modules[path.stem] = before
        raise
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Look for modules in `folder` too, first."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
