"""One module a command; each adds its parser and imports what it runs only when it runs."""

from typing import TYPE_CHECKING

from linprobe.cli import compare, layers, plot, probe, report, reproduce, show

if TYPE_CHECKING:
    from linprobe.cli.options import Commands


def add_parsers(commands: "Commands") -> None:
    """Add every command to the command line, in the order of its help."""
    layers.add_parser(commands)
    probe.add_parser(commands)
    reproduce.add_parser(commands)
    report.add_parser(commands)
    plot.add_parser(commands)
    show.add_parser(commands)
    compare.add_parser(commands)
