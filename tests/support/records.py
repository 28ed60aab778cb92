"""Made-up records for tests of what comes after probing."""

import math
from collections.abc import Sequence
from dataclasses import replace

from linprobe.evaluation.statistics import wilson_interval
from linprobe.records.config import ExperimentRecord, ExtractionRecord, MethodRecord, RunConfig
from linprobe.records.evidence import (
    FALLS,
    UNDECIDED,
    ControlRecord,
    DepthStep,
    Evaluation,
    OnlineCode,
)
from linprobe.records.schema import (
    CheckpointRecord,
    DatasetRecord,
    EnvironmentRecord,
    MajorityErrorRate,
    ProbeRecord,
    RunRecord,
)


def probe_record(index=0, layer="input", rate=0.1, status="converged", **changes):
    n = 10_000
    interval = (math.nan, math.nan) if math.isnan(rate) else wilson_interval(round(rate * n), n)
    values = {
        "layer": layer,
        "index": index,
        "num_features": 128,
        "reducer": None,
        "l2": 1e-6,
        "l2_at_edge": False,
        "status": status,
        "objective": 0.25,
        "duality_gap": 3e-5,
        "grad_norm": 2e-6,
        "bias_residual": 1e-12,
        "train_error_rate": 0.8 * rate,
        "validation_error_rate": rate,
        "test_error_rate": rate,
        "test_error_ci95": interval,
        "train_cross_entropy": 0.2,
        "validation_cross_entropy": 0.3,
        "test_cross_entropy": 0.3,
        "num_passes": 21.5,
        "seconds": 1.25,
    }
    return ProbeRecord(**(values | changes))


def checkpoint_record(rates: Sequence[float], name="untrained", step=0, **changes):
    layers = ["input", *(f"layer{i}" for i in range(1, len(rates) - 1)), "logits"]
    probes = tuple(
        probe_record(i, layer, rate)
        for i, (layer, rate) in enumerate(zip(layers[: len(rates)], rates, strict=True))
    )
    values = {
        "name": name,
        "step": step,
        "network_test_error_rate": 0.9,
        "stages": {"train": 1.0, "extract": 2.0, "solve": 3.0, "evaluate": 0.5},
        "probes": probes,
    }
    return CheckpointRecord(**(values | changes))


def run_config(chart="bars", tol=1e-4, network=None, float64=False, loading=None, **experiment):
    """The configuration of an experiment, whose own settings are the other keywords."""
    return RunConfig(
        device="cpu",
        method=MethodRecord(tol, 1 / 6),
        extraction=ExtractionRecord(network=network, float64=float64),
        experiment=ExperimentRecord(chart=chart, **experiment),
        loading=loading,
    )


def dataset_record(**changes):
    values = {
        "name": "mnist",
        "num_train": 60000,
        "num_test": 10000,
        "sha256": {"file": "00ff"},
        "majority_error_rate": MajorityErrorRate(train=0.88763, test=0.8865),
    }
    return DatasetRecord(**(values | changes))


def run_record(*checkpoints: CheckpointRecord, **changes):
    chart = "bars" if changes.get("experiment", "fig8") == "fig8" else "curve"
    values = {
        "experiment": "fig8",
        "protocol": "certified",
        "seed": 3,
        "quick": False,
        "config": run_config(chart, skip_layer="layer2"),
        "dataset": dataset_record(),
        "environment": EnvironmentRecord("0", "2", "3", "a CPU", 2, "cpu"),
        "seconds": 12.5,
        "peak_rss_bytes": 10**9,
        "complete": True,
        "checkpoints": checkpoints,
    }
    return RunRecord(**(values | changes))


def evaluation_record(rate=0.25, **changes):
    """Of 8 test samples of two classes and none of a third."""
    values = {
        "num_test": 8,
        "confusion": ((3, 1, 0), (1, 3, 0), (0, 0, 0)),
        "per_class_error_rate": (0.25, 0.25, None),
        "ece": 0.02,
        "brier": 0.3,
        "top_k_error_rate": {"2": 0.125},
        "v_information_bits": 0.5,
        "prior_entropy_bits": 1.0,
        "mdl": OnlineCode(60.0, 120.0, 2.0, ((2, 2.0), (6, 58.0))),
        "optimum_error_interval": (0.125, 0.375),
        "num_undecided": 2,
    }
    return Evaluation(**(values | changes))


def step_record(p_holm=0.01, **changes):
    values = {
        "from_layer": "input",
        "to_layer": "layer1",
        "num_fixed": 30,
        "num_broken": 10,
        "p_value": 0.005,
        "p_holm": p_holm,
        "verdict": FALLS if p_holm <= 0.05 else UNDECIDED,
    }
    return DepthStep(**(values | changes))


def control_record(name="shuffled_labels", layer="layer1", **changes):
    values = {
        "name": name,
        "layer": layer,
        "repeat": 0,
        "seed": 7,
        "test_error_rate": 0.9,
        "test_error_ci95": (0.89, 0.91),
        "l2": 1e-2,
        "duality_gap": 1e-6,
        "status": "converged",
        "selectivity": 0.8,
    }
    return ControlRecord(**(values | changes))


def trained_run(*statuses, **changes):
    """By protocol sgd, a probe for each status; a gap of .03 nats, or none where it diverged."""
    probes = []
    for i, status in enumerate(statuses):
        lost = status == "diverged"
        gap = 3e-5 if status == "converged" else math.nan if lost else 0.03
        rate = math.nan if lost else 0.1 + 0.01 * i
        probes.append(probe_record(i, f"layer{i}", rate, status, duality_gap=gap, num_passes=12))
    return run_record(checkpoint_record([], probes=tuple(probes)), protocol="sgd", **changes)


def read_again(checkpoint, layers, rate=0.8865, dtype="float32"):
    """The checkpoint with these layers read in float64, beside probes of the own activations."""

    def both(probe):
        own = replace(probe, dtype=dtype, test_error_rate=rate, rounded=True)
        return replace(probe, dtype="float64", native=own) if probe.layer in layers else probe

    return replace(checkpoint, probes=tuple(map(both, checkpoint.probes)))
