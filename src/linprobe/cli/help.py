"""The help of a command, from its docstring and its options.

Drawn here and not by the library, whose way needs rich, which takes as long to import as all the
rest of the command line.
"""

import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from cyclopts import App, Argument, Group

from linprobe.cli.errors import option_names, translated

_INDENT, _COLUMN, _WIDEST = "  ", 26, 100
_SECTIONS = re.compile(r"^(?:Args|Examples):\n", re.MULTILINE)
_ENTRY = re.compile(r"^ {4}(\w+): (.*(?:\n {5,}\S.*)*)", re.MULTILINE)


def help_text(app: App, chain: Sequence[str]) -> str:
    """Return the help of `app`, which is called by the words of `chain`."""
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    arguments: list[Argument] = []
    taken = ["COMMAND"]
    if app.default_command is not None:
        arguments = list(app.assemble_argument_collection())
        taken = [_label(argument) for argument in arguments if argument.required]
    about, *_, examples = _SECTIONS.split(_description(app))
    lines = [" ".join(("usage: linprobe", *(chain or ["[--version]"]), *taken, "[options]"))]
    for paragraph in about.strip().split("\n\n"):
        lines += ["", textwrap.fill(" ".join(paragraph.split()), width)]
    if not arguments:
        lines += ["", "commands (each has a --help of its own):"]
        lines += _columns(((name, _summary(app[name])) for name in app), width)
    said, flags = _said(app, arguments), option_names(arguments)
    for group, members in groupby((a for a in arguments if a.show), _group):
        rows = ((_label(a), translated(_about(a, said), flags)) for a in members)
        lines += ["", f"{group}:", *_columns(rows, width)]
    lines += ["", "examples:", textwrap.indent(textwrap.dedent(examples).strip(), _INDENT)]
    return "\n".join(lines)


def _said(app: App, arguments: Sequence[Argument]) -> dict[str, str]:
    """Return what docstrings say of each flag: that of the command, or of a group of options."""
    described = [(app.default_command, [a for a in arguments if not a.keys])]
    described += [(group.hint, group.children) for group in arguments if group.children]
    said = {}
    for source, members in described:
        entries = dict(_ENTRY.findall(inspect.getdoc(source) or ""))
        for member in members:
            text = entries.get(member.field_info.name, "")
            said[member.name] = " ".join(text.split()).removesuffix(".")
    return said


def _description(app: App) -> str:
    return app.help if app.default_command is None else inspect.getdoc(app.default_command) or ""


def _summary(app: App) -> str:
    first = _description(app).partition("\n\n")[0].removesuffix(".")
    return first[:1].lower() + first[1:]


def _columns(rows: "Iterator[tuple[str, str]]", width: int) -> Iterator[str]:
    for label, text in rows:
        first = f"{_INDENT}{label}"
        if len(first) > _COLUMN - len(_INDENT):
            yield first
            first = ""
        for line in textwrap.wrap(text, max(width, 2 * _COLUMN) - _COLUMN) or [""]:
            yield (first.ljust(_COLUMN) + line).rstrip()
            first = ""


def _group(argument: Argument) -> str:
    groups = argument.parameter.group
    name = next((group.name for group in groups if isinstance(group, Group)), "")  # type: ignore[union-attr]
    return "options" if name == "Parameters" else name.lower()


def _label(argument: Argument) -> str:
    """Return the flag and what it takes: ``--depth N``."""
    if argument.is_var_positional():
        return f"{argument.name} ..."
    if argument.is_flag() or argument.parameter.negative or argument.index is not None:
        return ", ".join((argument.name, *argument.negatives))
    choices = argument.get_choices()
    taken = f"{{{','.join(choices)}}}" if choices else argument.parameter.metavar
    return f"{argument.name} {taken}"


def _about(argument: Argument, said: Mapping[str, str]) -> str:
    """Return what is said of an option, and its default."""
    text = said[argument.name]
    default = argument.field_info.default
    if default is None:
        return text.replace("None: ", "default: ")
    text = text.replace("None: ", "none: ")
    if default is True:
        return f"{text} (default: on)"
    if isinstance(default, bool) or default is inspect.Parameter.empty or not str(default):
        return text
    if isinstance(default, tuple | dict):
        numbers = [f"{value:g}" for value in default]
        default = ",".join(numbers if len(numbers) < 5 else [*numbers[:2], "...", numbers[-1]])
    return f"{text} (default: {default})" if default != "" else text
