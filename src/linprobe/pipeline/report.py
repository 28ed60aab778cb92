"""The report that `linprobe.probe` returns: probes of a network's layers, and their record."""

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from linprobe.activations.layers import unknown_layer
from linprobe.evaluation.metrics import metric_records
from linprobe.pipeline.checkpoint import checkpoint_record
from linprobe.pipeline.engine import Probed
from linprobe.pipeline.layer_probe import Probe, load_probe_tensors, make_probe, save_probes
from linprobe.pipeline.records import controls_record, method_record
from linprobe.pipeline.task import Task, layer_notes
from linprobe.records.config import ExperimentRecord, ExtractionRecord, RunConfig
from linprobe.records.environment import environment, peak_rss_bytes
from linprobe.records.evidence import ControlRecord
from linprobe.records.predictions import FOLDER as PREDICTIONS
from linprobe.records.predictions import Predictions, load_predictions
from linprobe.records.schema import PROBE, DatasetRecord, ProbeRecord, RunRecord
from linprobe.records.store import check_folder, load_run, prepare_folder
from linprobe.records.store import save as save_run
from linprobe.records.table import PROBE_FIELDS, native_cells
from linprobe.report import doubts, wording
from linprobe.report.measures import TableColumn, chosen, table_columns
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.lock import folder_lock
from linprobe.runtime.terminals import printable
from linprobe.runtime.text import layer_name

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

CHECKPOINT = "network"
_WIDTH = 200  # a layer's name may be long


class _UnknownLayer(LinprobeError, KeyError):
    """A KeyError too, as every mapping raises."""

    __str__ = Exception.__str__


class ProbeReport(Mapping[str, Probe]):
    """Probes by layer, in the order in which the network reaches them.

    Args:
        run: the record, of one checkpoint.
        probes: by layer; a layer that was given as a number is found by it, and by its text.
        test_labels: (n_test,) int64, in the order of the test data; None: not known.

    Attributes:
        unwritten: why the folder that was asked for does not hold it; None: nothing failed.
    """

    def __init__(
        self, run: RunRecord, probes: Mapping[str, Probe], test_labels: Tensor | None = None
    ) -> None:
        self.run = run
        self.probes = dict(probes)
        self.test_labels = test_labels
        self.unwritten: str | None = None

    def __getitem__(self, layer: object) -> Probe:
        name = layer_name(layer)
        if name not in self.probes:
            raise _UnknownLayer(unknown_layer(name, list(self.probes)))
        return self.probes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.probes)

    def __len__(self) -> int:
        return len(self.probes)

    def __contains__(self, layer: object) -> bool:
        return layer_name(layer) in self.probes

    @property
    def records(self) -> tuple[ProbeRecord, ...]:
        """Records of the probes."""
        return tuple(probe.record for probe in self.probes.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what is unusual about labels and layers."""
        return self.run.config.notes

    def __str__(self) -> str:
        return self.table()

    __repr__ = __str__

    def table(self, metric: str | None = None) -> str:
        """Print a row a layer, and what is to be said of them.

        Args:
            metric: name of a metric, such as "auroc", which has a column beside the errors with
                its interval; None: where classes are imbalanced, those that show it have one.

        Raises:
            LinprobeError: There is no such metric.
        """
        console = Console(file=io.StringIO(), width=_WIDTH, color_system=None)
        with console.capture() as capture:
            console.print(_table(self.run, self.records, table_columns(self.run, metric)))
        lines = [line.rstrip() for line in capture.get().splitlines()]
        said = [*(line for line in lines if line), *self._sentences(metric)]
        return printable("\n".join(said))

    def _repr_html_(self) -> str:
        """Table and curve for notebooks."""
        from linprobe.report.notebook import run_html

        return run_html(self.run)

    def to_pandas(self, metric: str | None = None) -> "pandas.DataFrame":
        """Make a frame of a row a layer, a column a field of `ProbeRecord` or a metric.

        Args:
            metric: name of a metric, or "error_rate": the frame has this one alone, as "value",
                with the ends of its interval and its change from the layer before, as
                `metric_steps` and `steps` of a checkpoint hold it.

        Raises:
            LinprobeError: pandas isn't installed, or there is no such metric.
        """
        try:
            import pandas
        except ImportError as error:
            raise LinprobeError(
                "to_pandas needs pandas, which isn't installed: pip install pandas"
            ) from error
        if metric is not None:
            measure = chosen(self.run, metric)
            steps = {s.to_layer: s for c in self.run.checkpoints for s in measure.steps(c)}
            return pandas.DataFrame(
                {
                    "layer": record.layer,
                    "value": measure.value(record),
                    **dict(zip(("low", "high"), measure.interval(record), strict=True)),
                    "p_holm": steps[record.layer].p_holm if record.layer in steps else None,
                    "verdict": steps[record.layer].verdict if record.layer in steps else None,
                }
                for record in self.records
            )
        metrics = [metric.name for metric in self.run.metrics]
        rows = [
            {name: getattr(record, name) for name in PROBE_FIELDS}
            | native_cells(record)
            | {name: record.metric(name) for name in metrics}
            | {f"{name}_ci95": record.metric_interval(name) for name in metrics}
            for record in self.records
        ]
        return pandas.DataFrame(rows)

    def plot(self, metric: str | None = None) -> "Figure":
        """Test error, or another metric, at each layer with its interval, as `linprobe plot`."""
        from linprobe.report.plots import draw_run

        figure = draw_run(self.run, metric=metric)
        figure.axes[0].set_title(
            f"linear probes of {self.run.config.extraction.network or 'features'}"
        )
        return figure

    def save(
        self, folder: str | Path, *, overwrite: bool = False, metric: str | None = None
    ) -> Path:
        """Write the report as a run: results, probes, predictions, and report.html to look at.

        Args:
            folder: made if it is missing.
            overwrite: replace a run that is there.
            metric: name of the metric that the page shows first; None: the test error.

        Returns:
            The folder.

        Raises:
            LinprobeError: The folder holds a run already, can't be written, or is written to by
                another process; or there is no such metric.
        """
        folder = Path(folder)
        chosen(self.run, metric)
        check_folder(folder, overwrite=overwrite)
        with folder_lock(folder):
            prepare_folder(folder, overwrite=overwrite)
            self.write(folder, metric)
        return folder

    def write(self, folder: Path, metric: str | None = None) -> None:
        """Write the files of `save`, each whole or not at all, over those that are there."""
        from linprobe.report.page import write_report

        save_probes(folder, self.run.checkpoints[0].name, self.probes, self.test_labels)
        save_run(self.run, folder)
        write_report(self.run, folder, metric)

    def _sentences(self, metric: str | None) -> Iterator[str]:
        measure = chosen(self.run, metric)
        for checkpoint in self.run.checkpoints if measure.metric else ():
            if steps := measure.steps(checkpoint):
                yield wording.steps_summary(steps, measure.label)
        unsolved = sum(not record.converged for record in self.records)
        tol = self.run.config.method.tol
        yield (
            f"{len(self) - unsolved} of {len(self)} probes converged (duality gap at most "
            f"{tol:.0e} nats){'; * marks the others' if unsolved else ''}."
        )
        if exactness := wording.exactness(self.records):
            yield exactness
        if edge := doubts.path_ended(self.run):
            yield edge
        if alike := doubts.one_answer(self.records):
            yield alike
        if again := doubts.read_again(self.records):
            yield again
        yield from self.notes
        if self.unwritten is not None:
            yield f"NOT WRITTEN: {self.unwritten}."


def make_report(
    task: Task,
    probed: Probed,
    data_name: str,
    extraction: ExtractionRecord,
    device: str,
    started: float,
    controls: tuple[ControlRecord, ...] = (),
) -> ProbeReport:
    """Put the probes of all layers together.

    Args:
        task: what they have in common.
        probed: the probes.
        data_name: what the data was, in a word.
        extraction: how features were extracted.
        device: where the probes were solved.
        started: `time.perf_counter` at the start.
        controls: those that were not fitted with their layer.
    """
    run = RunRecord(
        experiment=PROBE,
        protocol="certified",
        seed=task.config.seed,
        quick=False,
        config=RunConfig(
            device=device,
            method=method_record(task.config, classes=task.classes),
            extraction=extraction,
            controls=controls_record(task.evaluation, task.config.seed),
            mdl=task.evaluation.mdl,
            experiment=ExperimentRecord(),
            notes=(*task.notes, *layer_notes(task, probed.probes.values())),
        ),
        dataset=DatasetRecord(
            name=data_name,
            num_train=task.num_train,
            num_test=len(task.test_labels),
            majority_error_rate=task.majority_error_rate,
            majority_metrics=task.majority_metrics,
            classes=None if task.classes == _numbers(len(task.classes)) else task.classes,
        ),
        environment=environment(torch.get_num_threads(), device),
        seconds=time.perf_counter() - started,
        peak_rss_bytes=peak_rss_bytes(),
        complete=True,
        checkpoints=(checkpoint_record(CHECKPOINT, probed, task, controls=controls),),
        metrics=metric_records(),
    )
    return ProbeReport(run, probed.probes, task.test_labels)


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
    tensors = load_probe_tensors(folder, checkpoint.name)
    labels: Tensor | None = None
    predictions: dict[str, Predictions] = {}
    if (folder / PREDICTIONS / f"{checkpoint.name}.safetensors").exists():
        labels, predictions = load_predictions(folder, checkpoint.name)
    controls: dict[str | None, list[ControlRecord]] = {}
    for control in checkpoint.controls:
        if control.name != "untrained":  # which is not the layer's own
            controls.setdefault(control.layer, []).append(control)
    probes = {
        record.layer: replace(
            make_probe(record, tensors, predictions, tuple(controls.get(record.layer, ()))),
            classes=run.dataset.classes or _numbers(_num_classes(tensors, record.layer)),
        )
        for record in checkpoint.probes
    }
    return ProbeReport(run, probes, labels)


def _numbers(count: int) -> tuple[str, ...]:
    """Names of classes that have no other names."""
    return tuple(map(str, range(count)))


def _num_classes(tensors: Mapping[str, Tensor], layer: str) -> int:
    bias = tensors.get(f"{layer}.bias")
    return 0 if bias is None else len(bias)


def _remarks(record: ProbeRecord) -> str:
    own = "" if record.native is None else f", read in {record.dtype}"
    return ", one class" * wording.answers_one(record) + own


def _table(
    run: RunRecord, records: tuple[ProbeRecord, ...], columns: Sequence[TableColumn]
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("layer", no_wrap=True)
    for name in ("features", "l2", "train", "test", "95 % interval", "gap"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, _ in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("reduced by", "status"):
        table.add_column(name, no_wrap=True)
    for record in records:
        low, high = record.test_error_ci95
        cells: list[Any] = [
            escape(printable(record.layer or "(output)")),
            f"{record.num_features:,}",
            f"{record.l2:.0e}",
            f"{record.train_error_rate:.4f}",
            f"{record.test_error_rate:.4f}" + (" " if record.converged else "*"),
            f"{low:.4f}-{high:.4f}",
            f"{record.duality_gap:.1e}",
            *(cell(record) for _, cell in columns),
            record.reducer or "",
            record.status + _remarks(record),
        ]
        table.add_row(*cells)
    return table
