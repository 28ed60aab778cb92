"""Records of a run: what they say of themselves, and how they grow."""

import math

import pytest

from linprobe.records.schema import ProbeRecord
from linprobe.runtime.errors import LinprobeError
from tests.support.records import checkpoint_record, dataset_record, probe_record, run_record


def test_grows_by_checkpoints(tmp_path):
    first = checkpoint_record([0.1, 0.2])
    run = run_record(complete=False, checkpoints=())
    grown = run.with_checkpoint(first, seconds=5.0, peak_rss_bytes=7)
    assert run.checkpoints == ()
    assert (grown.seconds, grown.peak_rss_bytes, grown.complete) == (5.0, 7, False)
    whole = grown.with_checkpoint(
        checkpoint_record([0.1], "b"), seconds=9.0, peak_rss_bytes=8, complete=True
    )
    assert whole.complete
    assert [c.name for c in whole.checkpoints] == ["untrained", "b"]
    assert whole.stages == {"train": 2.0, "extract": 4.0, "solve": 6.0, "evaluate": 1.0}
    with pytest.raises(LinprobeError, match="has a checkpoint 'untrained' already"):
        grown.with_checkpoint(first, seconds=0.0, peak_rss_bytes=0)


def test_unknown_checkpoint_is_named_with_those_there():
    run = run_record(checkpoint_record([0.1]), checkpoint_record([0.1], "trained"))
    assert run.checkpoint("trained").name == "trained"
    with pytest.raises(LinprobeError, match=r"no checkpoint 'x'; it has: untrained, trained"):
        run.checkpoint("x")


@pytest.mark.parametrize(
    ("status", "standing"),
    [
        ("converged", "certified"),
        ("early_stop", "trained"),
        ("epoch_limit", "trained"),
        ("diverged", "failed"),
        ("max_passes_reached", "failed"),
        ("some later status", "failed"),
    ],
)
def test_standing_of_a_probe(status, standing):
    assert probe_record(status=status).standing == standing


def test_a_failed_probe_needs_no_numbers():
    failed = ProbeRecord("layer1", 1, 64, None, status="nonfinite_features", reason="it holds NaN")
    assert failed.standing == "failed" and failed.reason == "it holds NaN"
    assert all(map(math.isnan, (failed.l2, failed.test_error_rate, *failed.test_error_ci95)))


def test_majority_baseline_of_each_split():
    majority = dataset_record().majority_error_rate
    assert (majority.error_rate("train"), majority.error_rate("test")) == (0.88763, 0.8865)


def test_experiments_are_told_from_probes_of_own_networks():
    assert run_record().is_experiment
    assert not run_record(experiment="probe").is_experiment
