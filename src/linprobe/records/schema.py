"""What a run found: frozen records that are the one source of tables, figures and reports.

`RunRecord` mirrors ``results.json`` (schema 1): the JSON keys are the field names. A float that
is not finite is null in JSON and NaN after loading. Fields that a later version adds are skipped
on loading; a missing field, a wrong type and an unknown schema are errors that name their place.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from linprobe.records.codec import FieldError, from_json, to_json
from linprobe.records.evidence import ControlRecord, DepthStep, Evaluation
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.files import atomic_write, write_csv

SCHEMA = 1
JSON_NAME = "results.json"
CSV_NAME = "results.csv"
CONVERGED = "converged"
AS_TRAINED = ("early_stop", "epoch_limit")

Standing = Literal["certified", "trained", "failed"]

Split = Literal["test", "train"]
"""Of the error rates that a curve shows."""


@dataclass(frozen=True)
class ProbeRecord:
    """One probe of one layer; error rates are fractions, cross-entropies nats.

    Attributes:
        layer: name of the probe point.
        index: place of the probe point along the network, from 0.
        num_features: D.
        reducer: how the layer was made smaller before probing; None: not at all.
        l2: the penalty chosen on held-out training samples; by protocol "sgd", which has none,
            the one that the certificate is for.
        l2_at_edge: the choice stands at an end of the path, so a better one may lie beyond.
        status: "converged", or why not; by protocol "sgd" what ended the training.
        duality_gap: certified bound on the distance of `objective` from its minimum, nats.
        test_error_ci95: Wilson interval of the test error rate.
        num_passes: readings of all features, for the whole path and the refit; epochs where the
            probe was trained by minibatches.
        evaluation: what the test probabilities show; None: not computed.
        rounded: of what varies in the activations, 1 % or more may be their own rounding.
    """

    layer: str
    index: int
    num_features: int
    reducer: str | None
    l2: float
    l2_at_edge: bool
    status: str
    objective: float
    duality_gap: float
    grad_norm: float
    bias_residual: float
    train_error_rate: float
    validation_error_rate: float
    test_error_rate: float
    test_error_ci95: tuple[float, float]
    train_cross_entropy: float
    validation_cross_entropy: float
    test_cross_entropy: float
    num_passes: float
    seconds: float
    evaluation: Evaluation | None = None
    rounded: bool = False

    @property
    def converged(self) -> bool:
        """Whether the certificate is within the tolerance that was asked for."""
        return self.status == CONVERGED

    def error_rate(self, split: Split) -> float:
        """Of that split."""
        return self.test_error_rate if split == "test" else self.train_error_rate

    @property
    def standing(self) -> Standing:
        """How far it can be trusted: as "trained" by minibatches, no optimum was asked for."""
        if self.converged:
            return "certified"
        return "trained" if self.status in AS_TRAINED else "failed"


@dataclass(frozen=True)
class CheckpointRecord:
    """All probes of one state of the network.

    Attributes:
        name: such as "untrained".
        step: training minibatches before it.
        network_test_error_rate: of the network's own output, dropout off.
        stages: seconds of each stage: "train", "extract", "solve", "evaluate".
        probes: in the order of the probe points.
        steps: paired comparison of each probe point with the next.
        controls: what the curve is to be compared with.
    """

    name: str
    step: int
    network_test_error_rate: float
    stages: dict[str, float]
    probes: tuple[ProbeRecord, ...]
    steps: tuple[DepthStep, ...] = ()
    controls: tuple[ControlRecord, ...] = ()


@dataclass(frozen=True)
class RunRecord:
    """One run of one experiment; grows by `with_checkpoint`, so it can be saved at each.

    Attributes:
        experiment: such as "fig5".
        protocol: "certified", or "sgd" where probes are trained as is usual, for comparison.
        quick: fewer samples and steps than the experiment asks for: not a result.
        complete: whether every checkpoint that the experiment asks for is there.
        config: the experiment's configuration, JSON types only.
        dataset: name, num_train, num_test, sha256 of each file, majority_error_rate of each split.
        environment: see `linprobe.records.environment.environment`.
        seconds: wall time from start to the last checkpoint.
        peak_rss_bytes: largest memory of the process until then.
    """

    experiment: str
    protocol: str
    seed: int
    quick: bool
    config: dict[str, Any]
    dataset: dict[str, Any]
    environment: dict[str, Any]
    seconds: float
    peak_rss_bytes: int
    complete: bool
    checkpoints: tuple[CheckpointRecord, ...]

    def with_checkpoint(
        self,
        checkpoint: CheckpointRecord,
        *,
        seconds: float,
        peak_rss_bytes: int,
        complete: bool = False,
    ) -> "RunRecord":
        """A copy with one checkpoint more.

        Raises:
            LinprobeError: A checkpoint of this name is there already.
        """
        if any(known.name == checkpoint.name for known in self.checkpoints):
            raise LinprobeError(
                f"the run has a checkpoint {checkpoint.name!r} already; expected a new name"
            )
        return replace(
            self,
            checkpoints=(*self.checkpoints, checkpoint),
            seconds=seconds,
            peak_rss_bytes=peak_rss_bytes,
            complete=complete,
        )

    def checkpoint(self, name: str) -> CheckpointRecord:
        """The checkpoint of that name.

        Raises:
            LinprobeError: There is none.
        """
        for checkpoint in self.checkpoints:
            if checkpoint.name == name:
                return checkpoint
        names = ", ".join(c.name for c in self.checkpoints) or "none yet"
        raise LinprobeError(f"the run has no checkpoint {name!r}; it has: {names}")

    @property
    def stages(self) -> dict[str, float]:
        """Seconds of each stage, summed over checkpoints."""
        total: dict[str, float] = {}
        for checkpoint in self.checkpoints:
            for name, seconds in checkpoint.stages.items():
                total[name] = total.get(name, 0.0) + seconds
        return total

    def save(self, folder: Path) -> None:
        """Write results.json and results.csv into `folder`, each whole or not at all."""
        folder = Path(folder)
        text = json.dumps(to_json({"schema": SCHEMA, **asdict(self)}), indent=1, allow_nan=False)
        with atomic_write(folder / JSON_NAME) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        write_csv(folder / CSV_NAME, _CSV_COLUMNS, _csv_rows(self))


def load_run(folder: Path) -> RunRecord:
    """Read the record of a run.

    Args:
        folder: the run's folder, or its results.json.

    Raises:
        LinprobeError: No such file, not JSON, another schema, or a field that is missing or has
            a wrong type; the message names the file and the field. Or the folder holds the runs
            of several seeds.
    """
    path = Path(folder)
    path = path / JSON_NAME if path.is_dir() else path
    if path.name == JSON_NAME and not path.exists() and (seeds := seed_folders(path.parent)):
        names = ", ".join(str(found) for found in seeds)
        raise LinprobeError(
            f"{folder} holds the runs of several seeds; expected one of them: {names} (or "
            f"`linprobe compare {folder}` with another run)"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LinprobeError(
            f"{path} can't be read ({error.strerror}); expected the folder of a finished "
            "`linprobe reproduce` run"
        ) from error
    except ValueError as error:
        raise LinprobeError(f"{path} is not valid JSON ({error}); make the run again") from error
    if not isinstance(content, dict):
        raise LinprobeError(f"{path} holds no JSON object; expected one with a schema")
    if content.get("schema") != SCHEMA:
        raise LinprobeError(
            f"{path} has schema {content.get('schema')!r}; this version of linprobe reads schema "
            f"{SCHEMA}: use the version that wrote it (environment.linprobe), or run again"
        )
    try:
        run = from_json(RunRecord, content)
    except FieldError as error:
        raise LinprobeError(f"{path}: {error}") from error
    assert isinstance(run, RunRecord)
    return run


def seed_folders(folder: Path) -> tuple[Path, ...]:
    """Folders of the runs that ``--seeds`` left in `folder`, by seed."""
    found = [path.parent for path in Path(folder).glob(f"seed*/{JSON_NAME}")]
    numbered = {int(name): path for path in found if (name := path.name[4:]).isdecimal()}
    return tuple(numbered[seed] for seed in sorted(numbered))


# CSV

_RUN_COLUMNS = ("experiment", "protocol", "seed", "quick")
_CHECKPOINT_COLUMNS = ("checkpoint", "step", "network_test_error_rate")
_CI = "test_error_ci95"
_PROBE_FIELDS = tuple(item.name for item in fields(ProbeRecord) if item.name != "evaluation")
_EVALUATION_COLUMNS = (
    *("ece", "brier", "auroc", "v_information_bits", "mdl_bits"),
    *("optimum_error_low", "optimum_error_high"),
)


def _probe_columns() -> Iterator[str]:
    for name in _PROBE_FIELDS:
        yield from (f"{_CI}_low", f"{_CI}_high") if name == _CI else (name,)


_CSV_COLUMNS = (
    *(*_RUN_COLUMNS, "dataset", *_CHECKPOINT_COLUMNS),
    *(*_probe_columns(), *_EVALUATION_COLUMNS),
)


def _csv_rows(run: RunRecord) -> Iterator[list[Any]]:
    """A row a probe; a value that is unknown is an empty cell."""
    head = [getattr(run, name) for name in _RUN_COLUMNS] + [run.dataset.get("name")]
    for checkpoint in run.checkpoints:
        middle = [checkpoint.name, checkpoint.step, checkpoint.network_test_error_rate]
        for probe in checkpoint.probes:
            row: list[Any] = [*head, *middle]
            for name in _PROBE_FIELDS:
                value = getattr(probe, name)
                row.extend(value if name == _CI else (value,))
            row.extend(_evaluation_cells(probe.evaluation))
            yield [to_json(cell) for cell in row]


def _evaluation_cells(e: Evaluation | None) -> tuple[float | None, ...]:
    """Cells of `_EVALUATION_COLUMNS`."""
    if e is None:
        return (None,) * len(_EVALUATION_COLUMNS)
    low, high = e.optimum_error_interval or (None, None)
    bits = e.mdl.bits if e.mdl is not None else None
    return (e.ece, e.brier, e.auroc, e.v_information_bits, bits, low, high)
