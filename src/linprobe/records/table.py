"""The table of a run: a row a probe, with the numbers of its evaluation."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from linprobe.records.codec import to_json
from linprobe.records.evidence import Evaluation
from linprobe.records.schema import ProbeRecord, RunRecord
from linprobe.runtime.files import write_csv

_NESTED = ("evaluation", "native", "path")
PROBE_FIELDS = tuple(item.name for item in fields(ProbeRecord) if item.name not in _NESTED)
"""Fields of a probe that hold one value, or the two ends of an interval."""

_NATIVE_FIELDS = ("dtype", "train_error_rate", "test_error_rate", "test_cross_entropy")

_RUN_COLUMNS = ("experiment", "protocol", "seed", "quick")
_CHECKPOINT_COLUMNS = ("checkpoint", "step", "network_test_error_rate")
_CI = "test_error_ci95"
_EVALUATION_COLUMNS = (
    *("ece", "brier", "v_information_bits", "mdl_bits"),
    *("optimum_error_low", "optimum_error_high"),
)


def write_table(run: RunRecord, path: Path) -> None:
    """Write a run as CSV, whole or not at all; an unknown value is an empty cell."""
    names = [metric.name for metric in run.metrics]
    ends = [f"{name}_ci95_{end}" for name in names for end in ("low", "high")]
    write_csv(path, (*_columns(), *names, *ends), _rows(run))


def _columns() -> tuple[str, ...]:
    probe = (
        column
        for name in PROBE_FIELDS
        for column in ((f"{_CI}_low", f"{_CI}_high") if name == _CI else (name,))
    )
    native = (f"native_{name}" for name in _NATIVE_FIELDS)
    return (*_RUN_COLUMNS, "dataset", *_CHECKPOINT_COLUMNS, *probe, *native, *_EVALUATION_COLUMNS)


def native_cells(probe: ProbeRecord) -> dict[str, Any]:
    """Give the numbers of the probe of the network's own activations, by column."""
    return {f"native_{name}": getattr(probe.native, name, None) for name in _NATIVE_FIELDS}


def _rows(run: RunRecord) -> Iterator[list[Any]]:
    head = [getattr(run, name) for name in _RUN_COLUMNS] + [run.dataset.name]
    for checkpoint in run.checkpoints:
        middle = [checkpoint.name, checkpoint.step, checkpoint.network_test_error_rate]
        for probe in checkpoint.probes:
            row: list[Any] = [*head, *middle]
            for name in PROBE_FIELDS:
                value = getattr(probe, name)
                row.extend(value if name == _CI else (value,))
            row.extend(native_cells(probe).values())
            row.extend(_evaluation_cells(probe.evaluation))
            row.extend(probe.metric(metric.name) for metric in run.metrics)
            for metric in run.metrics:
                row.extend(probe.metric_interval(metric.name))
            yield [to_json(cell) for cell in row]


def _evaluation_cells(evaluation: Evaluation | None) -> tuple[float | None, ...]:
    if evaluation is None:
        return (None,) * len(_EVALUATION_COLUMNS)
    low, high = evaluation.optimum_error_interval or (None, None)
    bits = evaluation.mdl.bits if evaluation.mdl is not None else None
    return (
        *(evaluation.ece, evaluation.brier),
        *(evaluation.v_information_bits, bits, low, high),
    )
