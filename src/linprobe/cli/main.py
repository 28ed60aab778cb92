"""The command line: thin, and without PyTorch until something is to be computed."""

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from cyclopts import App, CycloptsError, Parameter

import linprobe
from linprobe.cli.compare import compare
from linprobe.cli.ends import Terminated, terminable
from linprobe.cli.errors import option_names, translated, usage_message
from linprobe.cli.flags import as_options
from linprobe.cli.help import help_text
from linprobe.cli.layers import layers
from linprobe.cli.plot import plot
from linprobe.cli.probe import probe
from linprobe.cli.report import report
from linprobe.cli.reproduce import figures
from linprobe.cli.show import show
from linprobe.runtime.distributed import is_spoken_for
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.terminals import plain_where_needed
from linprobe.runtime.waiting import let_threads_rest

EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 130, 143

_HELP = ("--help", "-h")
_LINPROBE = """Linear classifier probes whose every point is a certified optimum.

Examples:
    linprobe reproduce fig8 --quick --depth 10
    linprobe probe my_code/net.py:make_net --data npz:data.npz
"""
_REPRODUCE = """Draw a figure of the paper from probes of a network trained here.

Trains the figure's network, probes every layer at each checkpoint, and draws it.

Examples:
    linprobe reproduce fig8 --quick --depth 10
    linprobe reproduce fig5 --seeds 3 --out runs/fig5-seeds
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; default: those of the process.

    Returns:
        The exit code: 0; 2 for what the user can put right; 130 after Ctrl-C; 143 after
        SIGTERM; 1 for the rest.
        Each failure is one line on stderr. With LINPROBE_DEBUG=1, tracebacks are shown too.
    """
    let_threads_rest(os.environ)
    with plain_where_needed(), terminable():
        return _exit_code(list(sys.argv[1:] if arguments is None else arguments))


def _exit_code(words: list[str]) -> int:
    try:
        _run(words)
        if sys.stdout is not None:
            sys.stdout.flush()
    except LinprobeError as error:
        return _fail(EXIT_USAGE, str(error))
    except KeyboardInterrupt as end:
        by_signal = isinstance(end, Terminated)
        said = ("terminated" if by_signal else "interrupted") + (f"; {end}" if str(end) else "")
        return _fail(EXIT_TERMINATED if by_signal else EXIT_INTERRUPTED, said)
    except OSError as error:
        if error.filename is not None or error.strerror is None:  # not that of a stream
            return _unexpected(error)
        _drop_output()
        said = f"output can't be written ({error.strerror}); send it somewhere else"
        return _fail(EXIT_USAGE, said)
    except Exception as error:
        return _unexpected(error)
    return 0


def _unexpected(error: Exception) -> int:
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return _fail(EXIT_FAILURE, f"unexpected {what} (set LINPROBE_DEBUG=1 to see the traceback)")


def _drop_output() -> None:
    """Let what is left of standard output go nowhere: it would fail again when Python ends."""
    with contextlib.suppress(OSError, ValueError):
        number = os.open(os.devnull, os.O_WRONLY)
        os.dup2(number, sys.stdout.fileno())
        os.close(number)


def _fail(code: int, message: str) -> int:
    if os.environ.get("LINPROBE_DEBUG", "0") not in ("", "0"):
        traceback.print_exc()
    if not is_spoken_for():
        print(f"linprobe: {message}", file=sys.stderr)
    return code


def _app() -> App:
    """Return the commands, in the order of the help."""
    # Help and version are ours: the library's need rich, which takes long to import.
    common: dict[str, Any] = {
        "help_flags": (),
        "version_flags": (),
        "default_parameter": Parameter(negative="", allow_repeating=True),
    }
    reproduce = App("reproduce", help=_REPRODUCE, **common)
    for figure in figures():
        reproduce.command(figure)
    app = App("linprobe", help=_LINPROBE, **common)
    for command in (layers, probe, reproduce, report, plot, show, compare):
        app.command(command)
    return app


def _run(words: list[str]) -> None:
    app = _app()
    asked = [word for word in words if word not in _HELP]
    chain, apps, rest = app.parse_commands(asked)
    called = " ".join(("linprobe", *chain))
    if len(asked) < len(words):
        print(help_text(apps[-1], chain))
        return
    if words == ["--version"]:
        print(f"linprobe {linprobe.__version__}")
        return
    if apps[-1].default_command is None and not rest:
        raise LinprobeError(f"a COMMAND is required: {', '.join(apps[-1])} (see {called} --help)")
    try:
        command, bound, _ = app.parse_args(
            words, print_error=False, exit_on_error=False, verbose=False
        )
    except CycloptsError as error:
        raise LinprobeError(usage_message(error, called)) from error
    try:
        command(*bound.args, **{name: as_options(value) for name, value in bound.kwargs.items()})
    except LinprobeError as error:
        flags = option_names(apps[-1].assemble_argument_collection())
        raise LinprobeError(translated(str(error), flags)) from error


if __name__ == "__main__":
    sys.exit(main())
