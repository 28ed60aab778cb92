"""Keywords that moved into a group of options, for one release."""

import warnings
from dataclasses import fields, replace
from typing import Any

from linprobe.runtime.errors import LinprobeError

_RENAMED = {"l2": "l2_path"}
_NEVER = ("seed", "validation_fraction", "max_passes", "repeats")


def grouped_options(
    function: str,
    old: dict[str, Any],
    asked: dict[str, tuple[object, type]],
) -> dict[str, Any]:
    """Put old keywords of `probe` and `fit_probes` into their groups of options.

    Args:
        function: whose keywords they are.
        old: keywords that the function does not name.
        asked: by the name of their parameter, options or None, and the class that they are of.

    Returns:
        The groups, with the old keywords in them.

    Raises:
        TypeError: A keyword that never was.
        LinprobeError: Options of another class.
    """
    groups: dict[str, Any] = {}
    for name, (options, kind) in asked.items():
        groups[name] = kind() if options is None else options
        if not isinstance(groups[name], kind):
            raise LinprobeError(
                f"{name} is a {type(options).__name__}; expected linprobe.{kind.__name__}(...)"
            )
    homes = {field.name: name for name, group in groups.items() for field in fields(type(group))}
    for name, value in old.items():
        new = _RENAMED.get(name, name)
        if new not in homes or new in _NEVER:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")
        home = homes[new]
        public = type(groups[home]).__name__
        warnings.warn(
            f"{function}({name}=...) is deprecated; use {home}=linprobe.{public}({new}=...)",
            DeprecationWarning,
            stacklevel=3,
        )
        groups[home] = replace(groups[home], **{new: value})
    return groups
