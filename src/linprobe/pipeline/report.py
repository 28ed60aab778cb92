"""What `linprobe.probe` returns: probes of a network's layers, and all that is known of them."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from linprobe.activations.layers import unknown_layer
from linprobe.activations.rules import Reduction
from linprobe.records.evidence import ControlRecord
from linprobe.records.folder import prepare_folder
from linprobe.records.predictions import FOLDER as PREDICTIONS
from linprobe.records.predictions import Predictions, load_predictions, save_predictions
from linprobe.records.schema import PROBE, ProbeRecord, RunRecord
from linprobe.records.store import load_run
from linprobe.records.store import save as save_run
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.files import atomic_write

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

CHECKPOINT = "network"
_PROBES = "probes"
_WIDTH = 200  # a layer's name may be long


@dataclass(frozen=True, eq=False)
class Probe:
    """The probe of one layer.

    Attributes:
        record: what was found.
        weight: (n_classes, n_features) float64 on raw features.
        bias: (n_classes,) float64; minus infinity for a class without training samples.
        reduction: how the layer's activation becomes features.
        columns: coordinates that a random reducer keeps, int64.
        predictions: on the test split; None: not known.
        controls: what the layer is compared with.
    """

    record: ProbeRecord
    weight: Tensor
    bias: Tensor
    reduction: Reduction
    columns: Tensor | None = None
    predictions: Predictions | None = None
    controls: tuple[ControlRecord, ...] = ()

    def linear(self, dtype: torch.dtype = torch.float32) -> nn.Linear:
        """The probe as a module, from features (n, n_features) to logits (n, n_classes)."""
        # Without storage at first: initial values would be drawn from the global generator.
        num_classes, num_features = self.weight.shape
        linear = nn.Linear(num_features, num_classes, dtype=dtype, device="meta")
        linear = linear.to_empty(device="cpu")
        with torch.no_grad():
            linear.weight.copy_(self.weight)
            linear.bias.copy_(self.bias)
        return linear

    def features(self, activation: Tensor, mask: Tensor | None = None) -> Tensor:
        """Make new activations of the layer into features, as was done for this probe.

        Args:
            activation: (n_samples, ...), what the layer gives.
            mask: (n_samples, n_tokens), the attention mask.

        Returns:
            (n_rows, n_features).

        Raises:
            LinprobeError: Not the layer's shape.
        """
        found = self.reduction.apply(activation, mask=mask, columns=self.columns)
        if found.shape[1] != self.weight.shape[1]:
            raise LinprobeError(
                f"layer {self.record.layer!r}: an activation of shape {tuple(activation.shape)} "
                f"gives {found.shape[1]} features, the probe takes {self.weight.shape[1]}; "
                "expected what the layer gave when it was probed"
            )
        return found


class _UnknownLayer(LinprobeError, KeyError):
    """A KeyError too, as every mapping raises."""

    __str__ = Exception.__str__


class ProbeReport(Mapping[str, Probe]):
    """Probes by layer, in the order in which the network reaches them.

    Args:
        run: the record, of one checkpoint.
        probes: by layer.
        test_labels: (n_test,) int64, in the order of the test data; None: not known.
    """

    def __init__(
        self, run: RunRecord, probes: Mapping[str, Probe], test_labels: Tensor | None = None
    ) -> None:
        self.run = run
        self.probes = dict(probes)
        self.test_labels = test_labels

    def __getitem__(self, layer: str) -> Probe:
        if layer not in self.probes:
            raise _UnknownLayer(unknown_layer(layer, list(self.probes)))
        return self.probes[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self.probes)

    def __len__(self) -> int:
        return len(self.probes)

    def __contains__(self, layer: object) -> bool:
        return layer in self.probes

    @property
    def records(self) -> tuple[ProbeRecord, ...]:
        """Records of the probes."""
        return tuple(probe.record for probe in self.probes.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """What is unusual about labels and layers, a sentence each."""
        return self.run.config.notes

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=_WIDTH, color_system=None)
        with console.capture() as capture:
            console.print(_table(self.records))
        lines = [line.rstrip() for line in capture.get().splitlines()]
        return "\n".join([*(line for line in lines if line), *self._sentences()])

    __repr__ = __str__

    def to_pandas(self) -> "pandas.DataFrame":
        """A row a layer, a column a field of `ProbeRecord`.

        Raises:
            LinprobeError: pandas isn't installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise LinprobeError(
                "to_pandas needs pandas, which isn't installed: pip install pandas"
            ) from error
        names = [field.name for field in fields(ProbeRecord) if field.name != "evaluation"]
        rows = [{name: getattr(record, name) for name in names} for record in self.records]
        return pandas.DataFrame(rows, columns=names)

    def plot(self) -> "Figure":
        """Test error at each layer with its interval, as `linprobe plot` draws it."""
        from linprobe.report.plots import draw_run

        figure = draw_run(self.run)
        figure.axes[0].set_title(
            f"linear probes of {self.run.config.extraction.network or 'features'}"
        )
        return figure

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the report as a run: results, probes, predictions, and report.html to look at.

        Args:
            folder: made if it is missing.
            overwrite: replace a run that is there.

        Returns:
            The folder.

        Raises:
            LinprobeError: The folder holds a run already, or can't be written.
        """
        from linprobe.report.page import write_report

        folder = Path(folder)
        prepare_folder(folder, overwrite=overwrite)
        name = self.run.checkpoints[0].name
        tensors: dict[str, Tensor] = {}
        for layer, probe in self.probes.items():
            tensors[f"{layer}.weight"] = probe.weight.contiguous()
            tensors[f"{layer}.bias"] = probe.bias.contiguous()
            if probe.columns is not None:
                tensors[f"{layer}.columns"] = probe.columns.contiguous()
        with atomic_write(folder / _PROBES / f"{name}.safetensors") as temporary:
            save_file(tensors, temporary)
        known = {k: p.predictions for k, p in self.probes.items() if p.predictions is not None}
        if self.test_labels is not None and known:
            save_predictions(folder, name, self.test_labels, known)
        save_run(self.run, folder)
        write_report(self.run, folder)
        return folder

    def _sentences(self) -> Iterator[str]:
        unsolved = sum(not record.converged for record in self.records)
        tol = self.run.config.method.tol
        yield (
            f"{len(self) - unsolved} of {len(self)} probes converged (duality gap at most "
            f"{tol:.0e} nats){'; * marks the others' if unsolved else ''}."
        )
        edge = [record.layer for record in self.records if record.l2_at_edge]
        if edge:
            some = ", ".join(edge[:3]) + (" ..." if len(edge) > 3 else "")
            yield f"The chosen l2 stands at an end of the path for {len(edge)} probes: {some}."
        yield from self.notes


def load_report(folder: str | Path) -> ProbeReport:
    """Read what `ProbeReport.save` wrote.

    Raises:
        LinprobeError: No such files, damaged ones, or a run of several checkpoints.
    """
    folder = Path(folder)
    run = load_run(folder)
    if run.experiment != PROBE or len(run.checkpoints) != 1:
        raise LinprobeError(
            f"{folder} holds a run of {run.experiment!r} with {len(run.checkpoints)} checkpoints; "
            "expected what a probe report saved: use linprobe.records.store.load_run"
        )
    checkpoint = run.checkpoints[0]
    path = folder / _PROBES / f"{checkpoint.name}.safetensors"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise LinprobeError(f"{path} can't be read ({error}); save the report again") from error
    labels: Tensor | None = None
    predictions: dict[str, Predictions] = {}
    if (folder / PREDICTIONS / path.name).exists():
        labels, predictions = load_predictions(folder, checkpoint.name)
    try:
        probes = {
            record.layer: Probe(
                record=record,
                weight=tensors[f"{record.layer}.weight"],
                bias=tensors[f"{record.layer}.bias"],
                reduction=Reduction.parse(record.reducer),
                columns=tensors.get(f"{record.layer}.columns"),
                predictions=predictions.get(record.layer),
                controls=tuple(c for c in checkpoint.controls if c.layer == record.layer),
            )
            for record in checkpoint.probes
        }
    except KeyError as error:
        raise LinprobeError(f"{path} has no {error}; save the report again") from error
    return ProbeReport(run, probes, labels)


def _table(records: tuple[ProbeRecord, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("layer", no_wrap=True)
    for name in ("features", "l2", "train", "test", "95 % interval", "gap"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("reduced by", "status"):
        table.add_column(name, no_wrap=True)
    for record in records:
        low, high = record.test_error_ci95
        cells: list[Any] = [
            escape(record.layer or "(output)"),
            f"{record.num_features:,}",
            f"{record.l2:.0e}",
            f"{record.train_error_rate:.4f}",
            f"{record.test_error_rate:.4f}" + (" " if record.converged else "*"),
            f"{low:.4f}-{high:.4f}",
            f"{record.duality_gap:.1e}",
            record.reducer or "",
            record.status,
        ]
        table.add_row(*cells)
    return table
