"""The command ``linprobe probe``."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from linprobe.activations.options import ExtractionOptions
from linprobe.cli.ends import kept_in
from linprobe.cli.flags import cpu_threads, flag, names
from linprobe.cli.network import DATA, Images, Network, open_data, open_network
from linprobe.cli.options import METRIC, OUT, Evaluation, Extraction, Method
from linprobe.evaluation.options import EvaluationOptions
from linprobe.probes.config import ProbeConfig
from linprobe.runtime.distributed import is_first
from linprobe.runtime.errors import LinprobeError

if TYPE_CHECKING:
    from linprobe.activations.checkpoints import Loaded
    from linprobe.data.specs import ProbeData
    from linprobe.pipeline.report import ProbeReport


def probe(
    factory: str,
    /,
    *,
    data: Annotated[str, DATA],
    layers: Annotated[tuple[str, ...] | None, flag(names, "NAME,NAME,...")] = None,
    out: Annotated[Path, OUT] = Path("runs", "probe"),
    overwrite: bool = False,
    metric: Annotated[str | None, METRIC] = None,
    untrained: Annotated[str | None, flag(str, "FACTORY")] = None,
    network: Network = Network(),
    images: Images = Images(),
    extraction: Extraction = ExtractionOptions(),
    method: Method = ProbeConfig(),
    evaluation: Evaluation = EvaluationOptions(),
) -> None:
    """Fit a certified linear probe at layers of a network and write a run.

    Args:
        factory: function or class that gives the network: package.module:name or
            path/to/file.py:name (the current folder is searched too).
        data: mnist, fashion-mnist, npz:FILE (x_train, y_train, x_test, y_test; groups_train and
            sample_weight_train too), imagefolder:DIR (train/CLASS/IMAGE, test/CLASS/IMAGE), or
            package.module:name of a pair (train, test).
        layers: names as `linprobe layers` lists them, or patterns: encoder.layer.*, layer.{0..11};
            a star ends at a dot, ** doesn't. None: every leaf that computes something.
        out: folder to write the run to, each layer when it is done; the same command goes on from
            there, whatever ended it.
        overwrite: replace a run that --out holds.
        metric: what table and page show first, such as auroc or average_precision; None: the test
            error, and more where classes are imbalanced.
        untrained: what gives the network of the control 'untrained', named as FACTORY and called
            with the same --kwargs; None: FACTORY where --checkpoint loads what was trained, else
            a copy of the network drawn anew by its own initialisation.

    Examples:
        linprobe probe my_code/net.py:make_net --checkpoint net.safetensors --data npz:data.npz
        linprobe probe torchvision.models:resnet18 --data imagefolder:photos --image-size 224
    """
    import linprobe
    from linprobe.evaluation.metrics import check_metric
    from linprobe.pipeline.folder import IN_PYTHON, RunFolder
    from linprobe.report.terminal import make_console, show_progress
    from linprobe.runtime.memory import tune_allocator

    check_metric(metric)
    folder = RunFolder(out, overwrite=overwrite, metric=metric)
    tune_allocator()
    with cpu_threads(network.threads):
        module, loaded = open_network(factory, network)
        evaluation = _with_untrained(evaluation, untrained, factory, network)
        found = open_data(data, images, extraction.batch_size)
        folder.describe = partial(
            _describe,
            *(factory, network, images, found, loaded, untrained),
        )
        with (
            kept_in(out, overwrite=overwrite),
            show_progress(make_console(stderr=True)) as on_event,
        ):
            report = linprobe.probe(
                module,
                found.train,
                found.test,
                layers=layers and list(layers),
                groups=found.groups,
                sample_weight=found.sample_weight,
                seed=network.seed,
                method=method,
                extraction=replace(extraction, device=network.device),
                evaluation=evaluation,
                out=folder,
                progress=on_event,
            )
    if is_first():
        print(report.table(metric))
    if report.unwritten is not None:
        why = report.unwritten.removesuffix(IN_PYTHON)
        raise LinprobeError(f"{why}; the same command then writes it")
    if is_first():
        print(f"Written to {out}")


def _with_untrained(
    evaluation: EvaluationOptions, untrained: str | None, factory: str, network: Network
) -> EvaluationOptions:
    """Name the untrained network: what FACTORY gives was not trained if its weights come later."""
    from linprobe.activations.load import build_network

    if untrained is None and "untrained" in evaluation.controls and network.checkpoint is not None:
        untrained = factory
    if untrained is None:
        return evaluation
    return replace(evaluation, untrained=partial(build_network, untrained, dict(network.kwargs)))


def _describe(
    factory: str,
    network: Network,
    images: Images,
    data: "ProbeData",
    loaded: "Loaded | None",
    untrained: str | None,
    report: "ProbeReport",
) -> None:
    """Put into the record what only the command line knows."""
    from linprobe.records.config import LoadingRecord

    run, found = report.run, {} if loaded is None else asdict(loaded)
    if found:
        for name in ("sha256", "key", "prefix"):
            found[f"checkpoint_{name}"] = found.pop(name)
    loading = LoadingRecord(
        factory=factory,
        kwargs=dict(network.kwargs),
        checkpoint=None if network.checkpoint is None else network.checkpoint.name,
        **found,
        untrained=untrained,
        channels=images.channels,
        image_size=images.image_size,
        normalize=images.normalize,
    )
    dataset = replace(run.dataset, name=data.name, sha256=data.sha256)
    notes = (*run.config.notes, *(loaded.notes if loaded else ()))
    config = replace(run.config, loading=loading, notes=notes)
    report.run = replace(run, dataset=dataset, config=config)
