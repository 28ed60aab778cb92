"""The command line: thin, and without PyTorch until something is to be computed."""

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import linprobe
from linprobe.errors import LinprobeError

if TYPE_CHECKING:
    from linprobe.experiments.common import Settings
    from linprobe.progress import OnEvent
    from linprobe.results import RunRecord

    Run = Callable[[OnEvent], RunRecord]

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
    reproduce = commands.add_parser(
        "reproduce",
        help="draw a figure of the paper from probes of a network trained here",
        description="Train a figure's network, probe every layer at each checkpoint, and draw it.",
    )
    figures = reproduce.add_subparsers(metavar="FIGURE", required=True)
    _add_figure5(figures)
    _add_figure8(figures)
    return parser


def _add_figure5(figures: "argparse._SubParsersAction[_Parser]") -> None:
    parser = figures.add_parser(
        "fig5",
        help="convolutional network, untrained and trained",
        description="Figure 5: test error of a probe at each layer of a convolutional network, "
        "untrained (a) and after 10 epochs (b).",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--recipe",
        choices=("paper", "course"),
        default="paper",
        help="initialisation and training (default: %(default)s)",
    )
    parser.set_defaults(command=_reproduce_figure5)
    _add_common(parser, Path("runs", "fig5"))


def _add_figure8(figures: "argparse._SubParsersAction[_Parser]") -> None:
    parser = figures.add_parser(
        "fig8",
        help="deep network with one skip connection, after 0, 500 and 2000 minibatches",
        description="Figure 8: error of a probe at each layer of a deep network whose input also "
        "enters the layer in the middle, after 0, 500 and 2000 minibatches.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--depth",
        type=_depth,
        metavar="N",
        help="hidden layers, even (default: 128; 10 with --quick)",
    )
    parser.set_defaults(command=_reproduce_figure8)
    _add_common(parser, Path("runs", "fig8"))


def _add_common(parser: argparse.ArgumentParser, out: Path) -> None:
    add = parser.add_argument
    add(
        "--dataset",
        choices=("mnist", "fashion-mnist"),
        default="mnist",
        help="what to train and probe on (default: %(default)s)",
    )
    add("--data-dir", metavar="DIR", help="folder of its files (default: found or downloaded)")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        default=out,
        help="folder to write the run to (default: %(default)s)",
    )
    add("--overwrite", action="store_true", help="replace a run that --out holds")
    add("--seed", type=_seed, metavar="N", default=0, help="of everything random (default: 0)")
    add("--threads", type=_threads, metavar="N", help="CPU threads (default: PyTorch's choice)")
    add(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="where to compute (default: %(default)s)",
    )
    add(
        "--quick",
        action="store_true",
        help="few samples and training steps, to see that all works: not a result",
    )


def _whole_number(text: str, least: int, expected: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"{text!r} given; expected {expected}")
    return number


def _seed(text: str) -> int:
    return _whole_number(text, 0, "a whole number from 0 on")


def _threads(text: str) -> int:
    return _whole_number(text, 1, "a whole number from 1 on")


def _depth(text: str) -> int:
    number = _whole_number(text, 2, "an even number of layers, 2 or more")
    if number % 2:
        raise argparse.ArgumentTypeError(
            f"{text!r} given; expected an even number of layers, 2 or more"
        )
    return number


def _reproduce_figure5(options: argparse.Namespace) -> None:
    from linprobe.experiments import figure5

    config = figure5.Figure5Config(_settings(options), recipe=options.recipe)
    _run(options, lambda on_event: figure5.run(config, on_event))


def _reproduce_figure8(options: argparse.Namespace) -> None:
    from linprobe.experiments import figure8

    config = figure8.Figure8Config(_settings(options), depth=options.depth)
    _run(options, lambda on_event: figure8.run(config, on_event))


def _settings(options: argparse.Namespace) -> "Settings":
    from linprobe.experiments.common import Settings

    return Settings(
        out=options.out,
        dataset=options.dataset,
        data_dir=options.data_dir,
        seed=options.seed,
        device=options.device,
        quick=options.quick,
        overwrite=options.overwrite,
    )


def _run(options: argparse.Namespace, run: "Run") -> None:
    from linprobe.memory import keep_freed_memory
    from linprobe.terminal import make_console, print_summary, show_progress

    keep_freed_memory()
    with _cpu_threads(options.threads), show_progress(make_console(stderr=True)) as on_event:
        record = run(on_event)
    print_summary(make_console(), record, options.out)


@contextlib.contextmanager
def _cpu_threads(number: int | None) -> Iterator[None]:
    """Let PyTorch use `number` threads within the block; None: leave its choice."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


if __name__ == "__main__":
    sys.exit(main())
