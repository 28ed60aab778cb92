"""The command ``linprobe reproduce``."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from linprobe.cli.options import (
    add_control_options,
    count,
    cpu_threads,
    momentum,
    positive_number,
    seed,
    slope,
    whole_number,
)

if TYPE_CHECKING:
    from linprobe.cli.options import Commands
    from linprobe.experiments.seeds import Config
    from linprobe.experiments.settings import Settings
    from linprobe.experiments.training import MLPTraining
    from linprobe.pipeline.minibatch import SGDProtocol
    from linprobe.records.schema import RunRecord
    from linprobe.runtime.progress import OnEvent


def add_parser(commands: "Commands") -> None:
    """Add the command and its figures to the command line."""
    reproduce = commands.add_parser(
        "reproduce",
        help="draw a figure of the paper from probes of a network trained here",
        description="Train a figure's network, probe every layer at each checkpoint, and draw it.",
    )
    figures = reproduce.add_subparsers(metavar="FIGURE", required=True)
    _add_figure5(figures)
    _add_figure8(figures)


def _add_figure5(figures: "Commands") -> None:
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
    parser.set_defaults(command=_reproduce_figure5, float64=False)
    _add_common(parser, Path("runs", "fig5"), probe_epochs=500)


def _add_figure8(figures: "Commands") -> None:
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
    parser.add_argument(
        "--float64",
        action="store_true",
        help="probe the activations of a forward pass in float64: deep layers vary by less than "
        "float32 can tell from their mean",
    )
    parser.set_defaults(command=_reproduce_figure8)
    _add_training(parser)
    _add_common(parser, Path("runs", "fig8"), probe_epochs=200)


def _add_common(parser: argparse.ArgumentParser, out: Path, *, probe_epochs: int) -> None:
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
    add(
        "--protocol",
        choices=("certified", "sgd"),
        default="certified",
        help="how probes come about: solved to certified optima, or, for comparison, trained by "
        "minibatches as is usual (default: %(default)s)",
    )
    add(
        "--epochs",
        type=count,
        metavar="N",
        help="of the probes' training by --protocol sgd, at most (default: "
        f"{probe_epochs}; 5 with --quick)",
    )
    add("--overwrite", action="store_true", help="replace a run that --out holds")
    add_control_options(parser)
    add("--seed", type=seed, metavar="N", default=0, help="of everything random (default: 0)")
    add(
        "--seeds",
        type=count,
        metavar="N",
        default=1,
        help="repeat network and probes with the seeds from --seed on, in DIR/seed0 and so on, "
        "and draw mean and range (default: 1, in DIR itself)",
    )
    add("--threads", type=count, metavar="N", help="CPU threads (default: PyTorch's choice)")
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


def _add_training(parser: argparse.ArgumentParser) -> None:
    """How the deep network is trained."""
    add = parser.add_argument
    add(
        "--optimizer",
        choices=("sgd", "rmsprop", "adam"),
        default="adam",
        help="that trains the network (default: %(default)s); the course's setting is --optimizer "
        "sgd --learning-rate 0.01, under which the deep network stays at the majority class",
    )
    add(
        "--learning-rate",
        type=positive_number,
        metavar="X",
        default=1e-4,
        help="of the network's training (default: %(default)s)",
    )
    add(
        "--batch-size",
        type=count,
        metavar="N",
        default=512,
        help="of the network's training (default: %(default)s)",
    )
    add("--momentum", type=momentum, metavar="X", help="of --optimizer sgd (default: 0.9)")
    add(
        "--slope",
        type=slope,
        metavar="X",
        default=0.1,
        help="of the network's leaky ReLU (default: %(default)s)",
    )


def _depth(text: str) -> int:
    number = whole_number(text, 2, "an even number of layers, 2 or more")
    if number % 2:
        raise argparse.ArgumentTypeError(
            f"{text!r} given; expected an even number of layers, 2 or more"
        )
    return number


def _reproduce_figure5(options: argparse.Namespace) -> None:
    from linprobe.experiments import figure5

    sgd = figure5.sgd_protocol(options.recipe, _epochs(options))
    config = figure5.Figure5Config(_settings(options, sgd), recipe=options.recipe)
    _run(options, config, figure5.run)


def _reproduce_figure8(options: argparse.Namespace) -> None:
    from linprobe.experiments import figure8

    sgd = figure8.sgd_protocol(_epochs(options))
    config = figure8.Figure8Config(
        _settings(options, sgd), options.depth, _training(options), options.slope
    )
    _run(options, config, figure8.run)


def _epochs(options: argparse.Namespace) -> int | None:
    from linprobe.runtime.errors import LinprobeError

    epochs: int | None = options.epochs
    if epochs is not None and options.protocol != "sgd":
        raise LinprobeError("--epochs is for --protocol sgd; certified probes have no epochs")
    return epochs


def _training(options: argparse.Namespace) -> "MLPTraining":
    from linprobe.experiments.training import MLPTraining
    from linprobe.runtime.errors import LinprobeError

    training = MLPTraining(options.optimizer, options.learning_rate, batch_size=options.batch_size)
    if options.momentum is None:
        return training
    if options.optimizer != "sgd":
        raise LinprobeError(f"--momentum is for --optimizer sgd; {options.optimizer} has none")
    return replace(training, momentum=options.momentum)


def _settings(options: argparse.Namespace, sgd: "SGDProtocol") -> "Settings":
    from linprobe.evaluation.controls import ControlConfig
    from linprobe.experiments.settings import Settings

    return Settings(
        out=options.out,
        dataset=options.dataset,
        data_dir=options.data_dir,
        seed=options.seed,
        device=options.device,
        quick=options.quick,
        overwrite=options.overwrite,
        controls=ControlConfig(options.controls, options.repeats),
        mdl=options.mdl,
        float64=options.float64,
        sgd=sgd if options.protocol == "sgd" else None,
    )


def _run(
    options: argparse.Namespace, config: "Config", run: "Callable[[Config, OnEvent], RunRecord]"
) -> None:
    from linprobe.experiments.seeds import run_over_seeds
    from linprobe.report.terminal import make_console, print_seeds, print_summary, show_progress
    from linprobe.runtime.memory import tune_allocator

    tune_allocator()
    with cpu_threads(options.threads), show_progress(make_console(stderr=True)) as on_event:
        if options.seeds > 1:
            records = run_over_seeds(config, run, options.seeds, on_event)
        else:
            records = (run(config, on_event),)
    if options.seeds > 1:
        print_seeds(make_console(), records, options.out)
    else:
        print_summary(make_console(), records[0], options.out)
