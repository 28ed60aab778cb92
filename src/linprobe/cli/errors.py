"""Errors as the command line says them: one line, and options by their names there."""

import re
from collections.abc import Iterable, Mapping

from cyclopts import (
    Argument,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnusedCliTokensError,
)


def usage_message(error: CycloptsError, called: str) -> str:
    """Say in one line what is wrong with the words of a call.

    Args:
        error: as it was raised when the words were read.
        called: the command, for a hint at its help.
    """
    argument = error.argument
    if isinstance(error, CoercionError) and error.msg and argument:
        said = f"{argument.name}: {argument.tokens[-1].value!r} given; {error.msg}"
    elif isinstance(error, MissingArgumentError) and argument:
        said = f"{error.keyword} needs a value" if error.keyword else f"{argument.name} is required"
    elif isinstance(error, UnusedCliTokensError):
        said = f"unknown argument {(error.unused_tokens or ['?'])[0]!r}"
    else:
        said = str(error)[:1].lower() + str(error)[1:]
    said = " ".join(said.split()).removesuffix(".")
    return f"{said} (see {called} --help)"


def option_names(arguments: Iterable[Argument]) -> dict[str, str]:
    """Return the flags of a command by the names that Python knows their options by."""
    names = {
        argument.field_info.name: argument.name
        for argument in arguments
        if argument.name.startswith("--")
    }
    return {name[2:].replace("-", "_"): name for name in names.values()} | names


def translated(message: str, flags: Mapping[str, str]) -> str:
    """Name the options of a message by their flags.

    Translated are ``name is`` at the beginning, ``name=value`` and ```name``` anywhere, and names
    with an underscore, such as ``memory_bytes``, since they can't be plain words.

    Args:
        message: of the library, which names parameters.
        flags: the flag of each parameter.
    """
    if not flags:
        return message
    known = "|".join(map(re.escape, flags))
    long = "|".join(re.escape(name) for name in flags if "_" in name) or "(?!)"
    pattern = (
        rf"^(?P<first>{known})(?= is )|`(?P<quoted>{known})`|\b(?P<set>{known})="
        rf"(?P<value>'[^']*'|-?[\w.]+)|\b(?P<long>{long})\b"
    )

    def named(match: re.Match[str]) -> str:
        name = next(match[part] for part in ("first", "quoted", "set", "long") if match[part])
        value = (match["value"] or "True").strip("'").replace("None", "none")
        return flags[name] if value == "True" else f"{flags[name]} {value}"

    return re.sub(pattern, named, message)
