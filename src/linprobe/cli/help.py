"""The help of a command, from its docstring and its options.

Drawn here and not by the library, whose way needs rich, which takes as long to import as all the
rest of the command line.
"""

import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

from cyclopts import App, Argument, Group

from linprobe.cli.errors import option_names, translated

_INDENT, _COLUMN, _WIDEST = "  ", 26, 100
_SECTIONS = re.compile(r"^(?:Args|Examples):\n", re.MULTILINE)


def help_text(app: App, chain: Sequence[str]) -> str:
    """Return the help of `app`, which is called by the words of `chain`."""
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    arguments: list[Argument] = []
    taken = ["COMMAND"]
    if app.default_command is not None:
        arguments = [a for a in app.assemble_argument_collection(parse_docstring=True) if a.show]
        taken = [_label(argument) for argument in arguments if argument.required]
    about, *_, examples = _SECTIONS.split(_description(app))
    lines = [" ".join(("usage: linprobe", *(chain or ["[--version]"]), *taken, "[options]"))]
    for paragraph in about.strip().split("\n\n"):
        lines += ["", textwrap.fill(" ".join(paragraph.split()), width)]
    if not arguments:
        lines += ["", "commands (each has a --help of its own):"]
        lines += _columns(((name, _summary(app[name])) for name in app), width)
    flags = option_names(app) if arguments else {}
    for group, members in groupby(arguments, _group):
        rows = ((_label(a), translated(_about(a), flags)) for a in members)
        lines += ["", f"{group}:", *_columns(rows, width)]
    lines += ["", "examples:", textwrap.indent(textwrap.dedent(examples).strip(), _INDENT)]
    return "\n".join(lines)


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
    if argument.is_flag() or argument.index is not None:
        return argument.name
    choices = argument.get_choices()
    taken = f"{{{','.join(choices)}}}" if choices else argument.parameter.metavar
    return f"{argument.name} {taken}"


def _about(argument: Argument) -> str:
    """Return what the docstring says of an option, and its default."""
    text = " ".join((argument.parameter.help or "").split()).removesuffix(".")
    default = argument.field_info.default
    if default is None:
        return text.replace("None: ", "default: ")
    text = text.replace("None: ", "none: ")
    if isinstance(default, bool) or default is inspect.Parameter.empty or not str(default):
        return text
    if isinstance(default, tuple | dict):
        numbers = [f"{value:g}" for value in default]
        default = ",".join(numbers if len(numbers) < 5 else [*numbers[:2], "...", numbers[-1]])
    return f"{text} (default: {default})" if default != "" else text
