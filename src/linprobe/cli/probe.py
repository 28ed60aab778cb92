"""The command ``linprobe probe``."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from linprobe.cli.network import (
    add_data_options,
    add_network_options,
    open_data,
    open_network,
)
from linprobe.cli.options import add_control_options, count, cpu_threads

if TYPE_CHECKING:
    from linprobe.cli.options import Commands
    from linprobe.data.specs import ProbeData
    from linprobe.pipeline.report import ProbeReport


def add_parser(commands: "Commands") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "probe",
        help="probe the layers of any network",
        description="Fit a certified linear probe at layers of a network and write a run.",
        allow_abbrev=False,
    )
    add_network_options(parser)
    add_data_options(parser, required=True)
    _add_probe_options(parser)
    parser.set_defaults(command=_probe)


def _add_probe_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--layers",
        type=_names,
        metavar="NAMES",
        help="names or globs, separated by commas, as `linprobe layers` lists them (default: "
        "every leaf that computes something)",
    )
    add(
        "--reduce",
        default="auto",
        metavar="HOW",
        help="large features: flatten, mean, max, pool:K, random:M or auto (default: %(default)s)",
    )
    add(
        "--tokens",
        type=_tokens,
        default="mean",
        metavar="WHICH",
        help="of sequences: last, first, mean, all, an index, or none (default: %(default)s)",
    )
    add(
        "--l2",
        type=_penalties,
        metavar="L2",
        help="one penalty, or several to choose from, separated by commas (default: a path)",
    )
    add(
        "--tol",
        type=float,
        default=1e-4,
        metavar="NATS",
        help="duality gap at which a probe counts as converged (default: %(default)s)",
    )
    add(
        "--batch-size",
        type=count,
        metavar="N",
        default=256,
        help="samples in a forward pass (default: %(default)s)",
    )
    add(
        "--memory",
        type=_gibibytes,
        metavar="GIB",
        help="for features held at a time (default: 40 %% of what is free)",
    )
    add_control_options(parser)
    add(
        "--out",
        type=Path,
        metavar="DIR",
        default=Path("runs", "probe"),
        help="folder to write the run to (default: %(default)s)",
    )
    add("--overwrite", action="store_true", help="replace a run that --out holds")


def _probe(options: argparse.Namespace) -> None:
    import linprobe
    from linprobe.evaluation.controls import ControlConfig
    from linprobe.records.folder import check_folder
    from linprobe.report.terminal import make_console, show_progress
    from linprobe.runtime.memory import tune_allocator

    check_folder(options.out, overwrite=options.overwrite)
    tune_allocator()
    with cpu_threads(options.threads):
        network, digest = open_network(options)
        data = open_data(options, options.batch_size)
        with show_progress(make_console(stderr=True)) as on_event:
            report = linprobe.probe(
                network,
                data.train,
                data.test,
                layers=options.layers,
                reduce=options.reduce,
                tokens=options.tokens,
                groups=data.groups,
                l2=options.l2,
                tol=options.tol,
                seed=options.seed,
                device=options.device,
                batch_size=options.batch_size,
                memory_bytes=options.memory,
                controls=ControlConfig(options.controls, options.repeats),
                mdl=options.mdl,
                progress=on_event,
            )
    _describe(report, options, data, digest)
    report.save(options.out, overwrite=options.overwrite)
    print(report)
    print(f"Written to {options.out}")


def _describe(
    report: "ProbeReport", options: argparse.Namespace, data: "ProbeData", digest: str | None
) -> None:
    """Put into the record what only the command line knows."""
    from linprobe.records.schema import LoadingRecord

    run = report.run
    loading = LoadingRecord(
        factory=options.factory,
        kwargs=options.kwargs,
        checkpoint=None if options.checkpoint is None else options.checkpoint.name,
        checkpoint_sha256=digest,
        channels=options.channels,
        image_size=options.image_size and tuple(options.image_size),
        normalize=options.normalize and tuple(tuple(part) for part in options.normalize),
    )
    classes = tuple(data.classes) if data.classes else None
    dataset = replace(run.dataset, name=data.name, sha256=data.sha256, classes=classes)
    report.run = replace(run, dataset=dataset, config=replace(run.config, loading=loading))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _tokens(text: str) -> str | int | None:
    if text == "none":
        return None
    try:
        return int(text)
    except ValueError:
        return text


def _penalties(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} given; expected a positive number, or several separated by commas"
        ) from error


def _gibibytes(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text!r} given; expected a positive number of GiB")
    return number * 2**30
