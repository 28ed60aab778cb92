"""Certified probes of features that are at hand: `fit_probes`, `fit_label_sets`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from linprobe.evaluation.options import EvaluationOptions
from linprobe.pipeline.array_call import ArrayCall
from linprobe.pipeline.dealing import Distribute, check_distribute
from linprobe.pipeline.deprecated import grouped_options
from linprobe.pipeline.folder import RunFolder, run_folder
from linprobe.pipeline.given import Labels, Layers
from linprobe.pipeline.progress import Progress
from linprobe.pipeline.report import ProbeReport
from linprobe.pipeline.task import SetName
from linprobe.probes.config import ProbeConfig
from linprobe.runtime.defaults import own_defaults
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.files import is_one_name


@own_defaults()
def fit_probes(
    train: Layers,
    labels: Labels,
    test: tuple[Layers, Labels],
    *,
    groups: object = None,
    sample_weight: object = None,
    num_classes: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    memory_bytes: float | None = None,
    method: ProbeConfig | None = None,
    evaluation: EvaluationOptions | None = None,
    strict: bool = False,
    out: str | Path | RunFolder | None = None,
    progress: Progress = None,
    distribute: Distribute = "layers",
    **deprecated: Any,
) -> ProbeReport:
    """Fit a certified linear probe to features that are at hand, layer by layer.

    Args:
        train: layer, by name or number, to (n_train, n_features): tensors, arrays, memory-mapped
            arrays, or paths of ``.npy`` files; or data frames, lists of rows, arrays of other
            libraries. Or the path of a ``.safetensors`` file that holds all layers. One layer is
            copied to memory at a time; of narrow layers, as many as there are threads. A layer
            that is larger than `memory_bytes` is streamed instead: read block by block, each time
            that all of its rows are needed.
        labels: (n_train,) classes: whole numbers, text or truth values, in a tensor, an array, a
            pandas Series or a list. They are numbered in sorted order, as `Probe.classes` says.
        test: the same layers of the test samples, as those of training, and their labels.
        groups: as in `probe`.
        sample_weight: as in `probe`.
        num_classes: K, of labels that are class numbers from 0 on; None: as many as occur.
        seed: as in `probe`.
        device: where probes are solved; the CPU instead of one without float64, as a note says.
        memory_bytes: for the features held at a time, and with those that are streamed for their
            logits, 28 bytes for each class and row; None: 40 % of the free memory.
        method: as in `probe`.
        evaluation: as in `probe`; no controls that start from a network or its inputs.
        strict: raise when a layer fails, instead of going on with the others.
        out: as in `probe`.
        progress: as in `probe`.
        distribute: "layers" or None, as in `probe`; or "rows": each process of torchrun, SLURM or
            an initialised process group gives some of the rows, of training and of test, with
            their labels, groups and weights, in the same layers; none is enough. Features are
            never gathered, and all get the same report. Its rows are those of the first process,
            then those of the second, and so on. An error ends the call in all.
        **deprecated: options by their old keywords, for this release.

    Raises:
        LinprobeError: Anything that can't be used; the message names the layer.
    """
    if isinstance(labels, Mapping):
        raise LinprobeError(
            f"labels are a dict of {len(labels)} entries; expected a class for each sample: for "
            "several label sets call linprobe.fit_label_sets"
        )
    options = grouped_options(
        "fit_probes",
        deprecated,
        {"method": (method, ProbeConfig), "evaluation": (evaluation, EvaluationOptions)},
    )
    call = ArrayCall(
        groups, sample_weight, num_classes, seed, device, memory_bytes, strict, **options
    )
    check_distribute(distribute, ("layers", "rows"))
    folders: dict[SetName, RunFolder | None] = {None: run_folder(out)}
    return call.run(train, {None: labels}, test, folders, progress, distribute)[None]


@own_defaults()
def fit_label_sets(
    train: Layers,
    label_sets: Mapping[str, Labels],
    test: tuple[Layers, Mapping[str, Labels]],
    *,
    groups: object = None,
    sample_weight: object = None,
    num_classes: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    memory_bytes: float | None = None,
    method: ProbeConfig | None = None,
    evaluation: EvaluationOptions | None = None,
    strict: bool = False,
    out: str | Path | RunFolder | None = None,
    progress: Progress = None,
    distribute: Distribute = "layers",
) -> dict[str, ProbeReport]:
    """Fit certified probes to several label sets of the same features, layer by layer.

    Each layer is read, standardised and factorised once for all label sets. They share the rows
    that are held out, which are stratified by all of them; what else they share changes no number.

    Args:
        train: as `fit_probes` takes it.
        label_sets: training labels of each set, such as a concept, by its name.
        test: the same layers of the test samples, and their labels in the same sets.
        groups: as `fit_probes` takes it.
        sample_weight: as `fit_probes` takes it, in all sets.
        num_classes: as `fit_probes` takes it, of every set.
        seed: as `fit_probes` takes it.
        device: as `fit_probes` takes it.
        memory_bytes: as `fit_probes` takes it.
        method: as `fit_probes` takes it. With a `class_weight` each set is standardised by its own
            weights.
        evaluation: as `fit_probes` takes it.
        strict: as `fit_probes` takes it.
        out: folder in which each set's run is written to a folder of the set's name.
        progress: as `fit_probes` takes it.
        distribute: as `fit_probes` takes it.

    Returns:
        A report for each label set, by name; `seconds` and `stages` in its record are those of the
        whole call.

    Raises:
        LinprobeError: Anything that can't be used; the message names the label set or the layer.
    """
    named = _named_sets(label_sets)
    options = grouped_options(
        "fit_label_sets",
        {},
        {"method": (method, ProbeConfig), "evaluation": (evaluation, EvaluationOptions)},
    )
    call = ArrayCall(
        groups, sample_weight, num_classes, seed, device, memory_bytes, strict, **options
    )
    check_distribute(distribute, ("layers", "rows"))
    folder = run_folder(out)
    folders = {name: None if folder is None else folder.below(str(name)) for name in named}
    found = call.run(train, named, test, folders, progress, distribute)
    return {str(name): report for name, report in found.items()}


def _named_sets(label_sets: object) -> dict[SetName, object]:
    """The label sets by their names, which are those of folders too."""
    if not isinstance(label_sets, Mapping) or not label_sets:
        kind = "empty" if isinstance(label_sets, Mapping) else f"a {type(label_sets).__name__}"
        raise LinprobeError(
            f"label_sets is {kind}; expected a dict of name to labels (of a data frame, "
            "dict(frame)); for a single label set call linprobe.fit_probes"
        )
    for name in label_sets:
        if not isinstance(name, str) or not is_one_name(name):
            raise LinprobeError(
                f"a label set is called {name!r}; expected text that can name a folder, without / "
                "and \\"
            )
    return dict(label_sets)
