"""The command line: thin, and without PyTorch until something is to be computed."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import linprobe
from linprobe.cli import add_parsers
from linprobe.runtime.errors import LinprobeError

EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; default: those of the process.

    Returns:
        The exit code: 0; 2 for what the user can put right; 130 after Ctrl-C; 1 for the rest.
        Each failure is one line on stderr. With LINPROBE_DEBUG=1, tracebacks are shown too.
    """
    try:
        options = _parser().parse_args(arguments)
        options.command(options)
    except LinprobeError as error:
        return _fail(EXIT_USAGE, str(error))
    except KeyboardInterrupt:
        return _fail(EXIT_INTERRUPTED, "interrupted; files of finished checkpoints are kept")
    except Exception as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        return _fail(EXIT_FAILURE, f"unexpected {what} (set LINPROBE_DEBUG=1 to see the traceback)")
    return 0


def _fail(code: int, message: str) -> int:
    if os.environ.get("LINPROBE_DEBUG", "0") not in ("", "0"):
        traceback.print_exc()
    print(f"linprobe: {message}", file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    """Reports a bad argument as one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        raise LinprobeError(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="linprobe",
        description="Linear classifier probes whose every point is a certified optimum.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"linprobe {linprobe.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    add_parsers(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
