"""Keywords that moved into a group of options, for one release."""

import warnings
from dataclasses import fields, replace
from typing import Any

_RENAMED = {"l2": "l2_path"}
_NEVER = ("seed", "validation_fraction", "max_passes", "repeats")


def grouped_options(
    function: str,
    old: dict[str, Any],
    groups: dict[str, Any],
) -> dict[str, Any]:
    """Put old keywords of `probe` and `fit_probes` into their groups of options.

    Args:
        function: whose keywords they are.
        old: keywords that the function does not name.
        groups: options by the name of their parameter.

    Returns:
        The groups, with the old keywords in them.

    Raises:
        TypeError: A keyword that never was.
    """
    homes = {field.name: name for name, group in groups.items() for field in fields(type(group))}
    for name, value in old.items():
        new = _RENAMED.get(name, name)
        if new not in homes or new in _NEVER:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")
        home = homes[new]
        kind = type(groups[home]).__name__
        warnings.warn(
            f"{function}({name}=...) is deprecated; use {home}=linprobe.{kind}({new}=...)",
            DeprecationWarning,
            stacklevel=3,
        )
        groups[home] = replace(groups[home], **{new: value})
    return groups
